//! Lists of headers that are used again. A list of three is five pieces of memory, and librdkafka frees them with each record:
//! to allocate, fill and free them took half of what the headers cost the worker (benches/README.md). Here a list comes back
//! with its record's report, and the next record of the same shape gets it with its own values written over the old ones.
//!
//! librdkafka has no call for that: it lends the place of a value for reading ([`Headers::value_at`]), which is memory of the
//! list's own that nothing else points to, and which nobody reads while no record has the list.

use std::collections::VecDeque;
use std::ffi::c_void;
use std::ptr::NonNull;

use super::Headers;
use crate::fetch::fetch;
use crate::partition::PartitionId;

/// Lists that wait to be used again, at most: some 400 bytes each. As many as are under way at once where none is late.
const FREE_MAX: usize = 8_192;
/// Shapes at a time: one for each length that offsets have.
const SHAPES_MAX: usize = 8;
/// Lists of one partition that records have, at most: beyond it those that have one now get no other use. (More than
/// `delivery.in_flight_max` as it comes; where that is set higher, lists are used again less often.)
const LENT_MAX: usize = 1 << 17;
/// What is known of so many (48 bytes each) may stay allocated for a partition that has none: about what a partition has under
/// way at full speed, so that not each transaction makes its memory anew.
const LENT_KEPT: usize = 1 << 13;

/// The lists of one producer: of `COUNT` headers, whose names are always the same.
pub struct HeaderLists<const COUNT: usize> {
    names: [&'static str; COUNT],
    /// By the lengths of their values.
    free: Vec<(Lengths<COUNT>, Vec<List<COUNT>>)>,
    free_count: usize,
    /// Those that records have, by partition, in the order in which they were sent. That is the order of the reports (`acks=all`,
    /// idempotent, gapless), but where a transaction is aborted ([`Self::forget_lent`]).
    lent: Vec<VecDeque<Lent<COUNT>>>,
}

/// A list is asked for from memory when so many others are to be lent before it.
const AHEAD: usize = 2;

type Lengths<const COUNT: usize> = [u8; COUNT];

/// A list, and where its values stand.
struct List<const COUNT: usize> {
    headers: Headers,
    values: [NonNull<u8>; COUNT],
}

/// What is known of a list that a record has.
struct Lent<const COUNT: usize> {
    opaque: usize,
    identity: NonNull<c_void>,
    lengths: Lengths<COUNT>,
    values: [NonNull<u8>; COUNT],
}

// SAFETY: pointers into lists, which may go from thread to thread, and which are written to only by who has the list.
unsafe impl<const COUNT: usize> Send for HeaderLists<COUNT> {}

impl<const COUNT: usize> HeaderLists<COUNT> {
    /// No list yet.
    pub fn new(names: [&'static str; COUNT]) -> Self {
        Self {
            names,
            free: Vec::new(),
            free_count: 0,
            lent: Vec::new(),
        }
    }

    /// A list of these values for the record with this opaque, which no other record of the partition has had since all that was
    /// lent was last forgotten: by it and by where it stands a list is known again.
    pub fn lend(
        &mut self,
        partition: PartitionId,
        opaque: usize,
        values: [&[u8]; COUNT],
    ) -> Headers {
        if !values.iter().all(|value| u8::try_from(value.len()).is_ok()) {
            return self.build(values);
        }
        let lengths = values.map(|value| value.len() as u8);
        let List {
            headers,
            values: places,
        } = match self.take(lengths) {
            Some(list) => {
                list.write(values);
                list
            }
            None => {
                let headers = self.build(values);
                let mut places = [NonNull::dangling(); COUNT];
                for (place, at) in places.iter_mut().enumerate() {
                    *at = headers.value_at(place).expect("it was just added");
                }
                List {
                    headers,
                    values: places,
                }
            }
        };
        let lent = Lent {
            opaque,
            identity: headers.identity(),
            lengths,
            values: places,
        };
        let of_partition = self.lent_in(partition);
        if of_partition.len() >= LENT_MAX {
            of_partition.clear();
        }
        of_partition.push_back(lent);
        headers
    }

    /// The report of a record with its headers: the list that it was lent is free again. What is left was not lent here.
    pub fn give_back(
        &mut self,
        partition: PartitionId,
        opaque: usize,
        headers: Option<Headers>,
    ) -> Option<Headers> {
        let Some(of_partition) = self.known_in(partition) else {
            return headers;
        };
        let Some(lent) = of_partition.pop_front_if(|of| of.opaque == opaque) else {
            return headers;
        };
        // The record's own, so the very list: as long as it lives there is no other one at its place.
        match headers {
            Some(headers) if headers.identity() == lent.identity => {
                let values = lent.values;
                self.keep(lent.lengths, List { headers, values });
                None
            }
            other => other,
        }
    }

    /// The record that was lent a list last was not sent after all.
    pub fn not_sent(&mut self, partition: PartitionId, opaque: usize) {
        if let Some(lent) = self.known_in(partition) {
            lent.pop_back_if(|last| last.opaque == opaque);
        }
    }

    /// To be called once every record has been reported. What is known as lent even then was reported before an earlier record,
    /// as an abort does (the client gives up what waits in it before what is under way), and would stand before what is lent next.
    pub fn forget_lent(&mut self) {
        for of_partition in &mut self.lent {
            of_partition.clear();
            // Memory is given back here only: at full speed each partition alone comes to its end again and again.
            of_partition.shrink_to(LENT_KEPT);
        }
    }

    fn keep(&mut self, lengths: Lengths<COUNT>, list: List<COUNT>) {
        if self.free_count >= FREE_MAX {
            // Those of another shape may be of offsets that are past.
            let mut others = self.free.iter_mut().filter(|(of, _)| *of != lengths);
            if others.find_map(|(_, lists)| lists.pop()).is_none() {
                return;
            }
            self.free_count -= 1;
        }
        self.of_shape(lengths).push(list);
        self.free_count += 1;
    }

    fn build(&self, values: [&[u8]; COUNT]) -> Headers {
        let headers = self.names.into_iter().zip(values);
        Headers::new(COUNT, headers.map(|(name, value)| (name, Some(value))))
    }

    fn take(&mut self, lengths: Lengths<COUNT>) -> Option<List<COUNT>> {
        let mut shapes = self.free.iter_mut();
        let (_, of_shape) = shapes.find(|(of, _)| *of == lengths)?;
        let list = of_shape.pop()?;
        self.free_count -= 1;
        if let Some(later) = of_shape.len().checked_sub(AHEAD + 1) {
            of_shape[later].fetch();
        }
        Some(list)
    }

    /// The free lists of this shape. Where there is no room for it, it takes the place of the one with the fewest.
    fn of_shape(&mut self, lengths: Lengths<COUNT>) -> &mut Vec<List<COUNT>> {
        let known = self.free.iter().position(|(of, _)| *of == lengths);
        let place = known.unwrap_or_else(|| {
            if self.free.len() < SHAPES_MAX {
                self.free.push((lengths, Vec::new()));
                return self.free.len() - 1;
            }
            let fewest = (0..SHAPES_MAX).min_by_key(|place| self.free[*place].1.len());
            let place = fewest.expect("there are shapes");
            self.free_count -= self.free[place].1.len();
            self.free[place] = (lengths, Vec::new());
            place
        });
        &mut self.free[place].1
    }

    /// What records of a partition have, if any had a list; a report may name none.
    fn known_in(&mut self, partition: PartitionId) -> Option<&mut VecDeque<Lent<COUNT>>> {
        self.lent.get_mut(usize::try_from(partition.0).ok()?)
    }

    fn lent_in(&mut self, partition: PartitionId) -> &mut VecDeque<Lent<COUNT>> {
        let place = usize::try_from(partition.0).expect("an output has a partition");
        if self.lent.len() <= place {
            self.lent.resize_with(place + 1, VecDeque::new);
        }
        &mut self.lent[place]
    }
}

impl<const COUNT: usize> List<COUNT> {
    /// Asks for what librdkafka reads and we write when it is lent: the client's thread had it last, and long ago.
    fn fetch(&self) {
        fetch(self.headers.identity().as_ptr());
        for place in self.values {
            fetch(place.as_ptr());
        }
    }

    /// Writes these values, of the list's own lengths, over its old ones.
    fn write(&self, values: [&[u8]; COUNT]) {
        for (place, value) in self.values.into_iter().zip(values) {
            // SAFETY: the place of a value of this length ([`HeaderLists::take`]) in a list that is alive and that no record
            // has; what is written is not of the list.
            unsafe { place.copy_from_nonoverlapping(NonNull::from(value).cast(), value.len()) };
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use proptest::prelude::*;

    use super::*;
    use crate::kafka::admin::Admin;
    use crate::kafka::client::Settings;
    use crate::kafka::ffi::Produced;
    use crate::kafka::ffi::noting::{noting, wait_for};
    use crate::kafka::mock::EmbeddedCluster;
    use crate::kafka::reader::TopicReader;

    const NAMES: [&str; 2] = ["a", "b"];
    const ANY: PartitionId = PartitionId(0);

    fn values(headers: &Headers, lengths: [usize; 2]) -> [Vec<u8>; 2] {
        let mut place = 0..;
        lengths.map(|len| {
            let at = headers.value_at(place.next().unwrap()).unwrap();
            // SAFETY: the value of a live list, of this length.
            unsafe { std::slice::from_raw_parts(at.as_ptr(), len) }.to_vec()
        })
    }

    #[test]
    fn a_list_that_came_back_says_what_the_next_record_of_its_shape_says() {
        let mut lists = HeaderLists::new(NAMES);
        let first = lists.lend(ANY, 1, [b"one", b"12"]);
        let identity = first.identity();
        lists.give_back(ANY, 1, Some(first));
        let other = lists.lend(ANY, 2, [b"one", b"123"]);
        assert_ne!(other.identity(), identity, "a value is longer");
        let next = lists.lend(ANY, 3, [b"two", b"34"]);
        assert_eq!(next.identity(), identity);
        assert_eq!(values(&next, [3, 2]), [b"two".to_vec(), b"34".to_vec()]);
        assert_eq!(values(&other, [3, 3]), [b"one".to_vec(), b"123".to_vec()]);
    }

    #[test]
    fn only_the_very_list_that_a_record_was_lent_is_used_again() {
        let mut lists = HeaderLists::new(NAMES);
        let foreign = || Headers::new(0, std::iter::empty());
        let lent = lists.lend(ANY, 1, [b"x", b"y"]);
        // Of a record that was lent none, of another partition, without one, and another one in its place.
        lists.give_back(ANY, 7, Some(foreign()));
        lists.give_back(PartitionId(3), 1, Some(foreign()));
        lists.give_back(PartitionId(-1), 1, Some(foreign()));
        assert_eq!((lists.free_count, lists.lent[0].len()), (0, 1));
        lists.give_back(ANY, 1, Some(foreign()));
        assert_eq!((lists.free_count, lists.lent[0].len()), (0, 0));
        lists.give_back(ANY, 1, Some(lent));
        assert_eq!(lists.free_count, 0, "nobody knows of it any more");
        // One that was not sent is no longer in the way of the others, nor is one whose report had no list.
        drop(lists.lend(ANY, 2, [b"x", b"y"]));
        lists.not_sent(ANY, 2);
        let (lost, known) = (
            lists.lend(ANY, 3, [b"x", b"y"]),
            lists.lend(ANY, 4, [b"x", b"y"]),
        );
        drop(lost);
        lists.give_back(ANY, 3, None);
        lists.give_back(ANY, 4, Some(known));
        assert_eq!(lists.free_count, 1);
    }

    #[test]
    fn records_reported_out_of_order_are_in_no_ones_way_once_they_are_forgotten() {
        let mut lists = HeaderLists::new(NAMES);
        let lend = |lists: &mut HeaderLists<2>, opaque| lists.lend(ANY, opaque, [b"x", b"y"]);
        let [first, second] = [1, 2].map(|opaque| lend(&mut lists, opaque));
        for (opaque, headers) in [(2, second), (1, first)] {
            drop(lists.give_back(ANY, opaque, Some(headers)));
        }
        // The first one's came back; the second one's is freed, and nothing behind it would be known again.
        assert_eq!((lists.free_count, lists.lent[0].len()), (1, 1));
        let behind = lend(&mut lists, 3);
        assert!(lists.give_back(ANY, 3, Some(behind)).is_some());
        lists.forget_lent();
        let next = lend(&mut lists, 4);
        assert!(lists.give_back(ANY, 4, Some(next)).is_none());
        assert_eq!((lists.free_count, lists.lent[0].len()), (1, 0));
    }

    #[test]
    fn what_is_kept_is_bounded_and_a_new_shape_takes_the_place_of_an_old_one() {
        let mut lists = HeaderLists::new(NAMES);
        let mut round = |value: &[u8], count: usize| {
            let lent: Vec<_> = (0..count)
                .map(|opaque| lists.lend(ANY, opaque, [b"", value]))
                .collect();
            for (opaque, headers) in lent.into_iter().enumerate() {
                lists.give_back(ANY, opaque, Some(headers));
            }
            lists.forget_lent();
            assert!(lists.lent[0].capacity() <= LENT_KEPT, "none is lent");
            let of_shape = lists.free.iter().find(|(of, _)| of[1] == value.len() as u8);
            (
                lists.free_count,
                of_shape.map_or(0, |(_, lists)| lists.len()),
            )
        };
        assert_eq!(round(b"123", FREE_MAX + 10), (FREE_MAX, FREE_MAX));
        assert_eq!(round(b"1234", 100), (FREE_MAX, 100));
        for len in 5..5 + 2 * SHAPES_MAX {
            let (all, of_shape) = round(&vec![b'0'; len], 2 + len);
            assert_eq!(of_shape, 2 + len);
            assert!(all <= FREE_MAX);
        }
        let long = [b'0'; 300];
        assert_eq!(
            round(&long, 3).1,
            0,
            "too long for a shape, and sent all the same"
        );
        assert!(lists.free.len() <= SHAPES_MAX);
        let counted: usize = lists.free.iter().map(|(_, lists)| lists.len()).sum();
        assert_eq!(counted, lists.free_count);
    }

    /// The opaque of a record, its list and what that must say.
    type UnderWay = (usize, Headers, [Vec<u8>; 2]);

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn each_record_has_its_own_values_whatever_comes_back_when(
            steps in prop::collection::vec(
                (0..3_i32, 0..4_usize, any::<u16>(), 0..3_usize, prop::bool::weighted(0.05)),
                1..200,
            ),
        ) {
            let mut lists = HeaderLists::new(NAMES);
            let mut under_way: [VecDeque<UnderWay>; 3] = Default::default();
            for (opaque, (partition, back, number, len, is_aborted)) in steps.into_iter().enumerate() {
                let wanted = [vec![b'x'; len], number.to_string().into_bytes()];
                let headers = lists.lend(PartitionId(partition), opaque, [&wanted[0], &wanted[1]]);
                under_way[partition as usize].push_back((opaque, headers, wanted));
                for (of, records) in under_way.iter_mut().enumerate() {
                    for (_, headers, wanted) in records.iter() {
                        prop_assert_eq!(&values(headers, [wanted[0].len(), wanted[1].len()]), wanted);
                    }
                    if of == partition as usize {
                        for (opaque, headers, _) in records.drain(..back.min(records.len())) {
                            lists.give_back(PartitionId(of as i32), opaque, Some(headers));
                        }
                    }
                }
                if is_aborted {
                    for (of, records) in under_way.iter_mut().enumerate() {
                        for (opaque, headers, _) in records.drain(..).rev() {
                            lists.give_back(PartitionId(of as i32), opaque, Some(headers));
                        }
                    }
                    lists.forget_lent();
                }
            }
        }
    }

    #[test]
    fn records_whose_lists_were_others_before_are_read_back_with_their_own_headers() {
        const ROUNDS: usize = 20;
        const EACH: usize = 200;
        let cluster = EmbeddedCluster::start(1).unwrap();
        cluster.create_topic("t", 2).unwrap();
        let settings = Settings::new(&cluster.bootstrap_servers(), "g");
        let (mut producer, noted) = noting(&settings.producer(100_000, 1 << 26));
        let topic = producer.topic("t").unwrap();
        let mut lists = HeaderLists::new(NAMES);
        let mut built = std::collections::HashSet::new();
        for round in 0..ROUNDS {
            for number in round * EACH..(round + 1) * EACH {
                let partition = PartitionId((number % 2) as i32);
                let text = number.to_string();
                let list = lists.lend(partition, number, [text.as_bytes(), b"same"]);
                built.insert(list.identity());
                let record = Produced {
                    opaque: number,
                    partition: Some(partition),
                    key: None,
                    value: Some(text.as_bytes()),
                    timestamp: None,
                };
                topic.produce(&record, &mut Some(list)).unwrap();
            }
            wait_for(&mut producer, &noted, EACH);
            for one in noted.lock().unwrap().drain(..) {
                assert_eq!(one.error, None);
                assert!(one.headers.is_some(), "the record had a list");
                lists.give_back(one.partition, one.opaque, one.headers);
            }
        }
        // A round's worth for each number of digits: all the other lists were used again.
        assert!(built.len() <= 4 * EACH, "{} lists", built.len());
        let admin = Admin::new(&settings, Duration::from_secs(10)).unwrap();
        let mut read = 0;
        TopicReader::all(&settings, &admin, "t")
            .unwrap()
            .read_all(Duration::from_secs(20), |record| {
                assert_eq!(
                    record.headers,
                    [("a", record.value), ("b", Some(&b"same"[..]))]
                );
                read += 1;
            })
            .unwrap();
        assert_eq!(read, ROUNDS * EACH);
    }
}
