//! Which partition of the enriched topic a record goes to (DESIGN 7).
//!
//! The same number as its source where both topics have as many partitions, as that keeps source order whatever the
//! keys; else by key, as Java clients do it, so that other producers of the same entity agree.

use std::num::NonZeroU32;

use crate::partition::PartitionId;

/// `enriched.partition = "auto"`, decided.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Partitioning {
    /// The source's number.
    Same,
    /// By key over this many partitions; a null key by the source's number.
    Key(NonZeroU32),
}

impl Partitioning {
    /// The choice for these partition counts.
    #[must_use]
    pub fn decide(source_count: u32, enriched_count: NonZeroU32) -> Self {
        if source_count == enriched_count.get() {
            Self::Same
        } else {
            Self::Key(enriched_count)
        }
    }

    /// The partition for a record of `source` with this key.
    #[must_use]
    pub fn partition(self, source: PartitionId, key: Option<&[u8]>) -> PartitionId {
        let place = match self {
            Self::Same => return source,
            // `toPositive` of the Java client: the sign bit is dropped, not the sign turned.
            Self::Key(count) => {
                let number = key.map_or(source.0.unsigned_abs(), |key| murmur2(key) & 0x7fff_ffff);
                number % count
            }
        };
        PartitionId(i32::try_from(place).expect("a positive i32 modulo a count is one"))
    }
}

/// MurmurHash2 as `org.apache.kafka.common.utils.Utils.murmur2` computes it.
#[must_use]
pub fn murmur2(data: &[u8]) -> u32 {
    const SEED: u32 = 0x9747_b28c;
    const M: u32 = 0x5bd1_e995;
    const R: u32 = 24;
    let mut hash = SEED ^ data.len() as u32;
    let (words, tail) = data.as_chunks::<4>();
    for word in words {
        let mut k = u32::from_le_bytes(*word).wrapping_mul(M);
        k ^= k >> R;
        hash = hash.wrapping_mul(M) ^ k.wrapping_mul(M);
    }
    if !tail.is_empty() {
        for (at, byte) in tail.iter().enumerate() {
            hash ^= u32::from(*byte) << (8 * at);
        }
        hash = hash.wrapping_mul(M);
    }
    hash ^= hash >> 13;
    hash = hash.wrapping_mul(M);
    hash ^ hash >> 15
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn murmur2_is_that_of_java_clients() {
        // From `UtilsTest.testMurmur2` of Apache Kafka.
        let known: [(&[u8], i32); 7] = [
            (b"21", -973_932_308),
            (b"foobar", -790_332_482),
            (b"a-little-bit-long-string", -985_981_536),
            (b"a-little-bit-longer-string", -1_486_304_829),
            (
                b"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8",
                -58_897_971,
            ),
            (b"abc", 479_470_107),
            (b"", 275_646_681),
        ];
        for (key, hash) in known {
            assert_eq!(
                murmur2(key) as i32,
                hash,
                "{}",
                String::from_utf8_lossy(key)
            );
        }
    }

    #[test]
    fn equal_counts_keep_the_number_and_others_go_by_key() {
        let eight = NonZeroU32::new(8).unwrap();
        assert_eq!(Partitioning::decide(8, eight), Partitioning::Same);
        let by_key = Partitioning::decide(4, eight);
        assert_eq!(by_key, Partitioning::Key(eight));
        assert_eq!(
            Partitioning::Same.partition(PartitionId(3), Some(b"abc")),
            PartitionId(3)
        );
        assert_eq!(
            by_key.partition(PartitionId(3), Some(b"abc")),
            PartitionId(479_470_107 % 8)
        );
        let negative = (-973_932_308_i32 & 0x7fff_ffff) % 8;
        assert_eq!(
            by_key.partition(PartitionId(3), Some(b"21")),
            PartitionId(negative)
        );
        assert_eq!(
            by_key.partition(PartitionId(11), None),
            PartitionId(3),
            "a null key by the source"
        );
    }
}
