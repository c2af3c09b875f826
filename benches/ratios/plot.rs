//! Charts as SVG files, in the folder that `RINGFENCE_BENCH_PLOTS` names: lines, steps and levels over two axes, no more than
//! the benchmarks need.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use crate::support::measure;

const WIDTH: f64 = 860.0;
const HEIGHT: f64 = 460.0;
/// The frame that the axes make: left, top, right, bottom.
const FRAME: [f64; 4] = [90.0, 64.0, 580.0, 390.0];
/// Ones that the colour-blind can tell apart (Okabe and Ito).
const COLOURS: [&str; 6] = [
    "#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9",
];

/// Where the charts go, if they are wanted.
pub(crate) fn folder() -> Option<PathBuf> {
    std::env::var_os("RINGFENCE_BENCH_PLOTS").map(PathBuf::from)
}

/// How an axis is divided.
#[derive(Copy, Clone, PartialEq)]
pub(crate) enum Scale {
    /// From zero.
    Linear,
    Log,
}

pub(crate) struct Axis {
    pub(crate) label: &'static str,
    pub(crate) scale: Scale,
    /// How a number on it is written.
    pub(crate) tick: fn(f64) -> String,
}

/// How the points of a series are drawn.
#[derive(Copy, Clone, PartialEq)]
pub(crate) enum Style {
    /// Marks with a line through them.
    Line,
    /// A histogram's outline.
    Steps,
    /// A dashed line.
    Level,
}

pub(crate) struct Series {
    /// In the legend, one line or several.
    pub(crate) name: String,
    pub(crate) style: Style,
    pub(crate) points: Vec<(f64, f64)>,
}

impl Series {
    pub(crate) fn line(name: &str, points: Vec<(f64, f64)>) -> Self {
        Self {
            name: name.to_owned(),
            style: Style::Line,
            points,
        }
    }
}

pub(crate) struct Chart<'a> {
    /// The file's name, without `.svg`.
    pub(crate) name: &'a str,
    pub(crate) title: &'a str,
    /// What was measured, in a line below the title.
    pub(crate) below: &'a str,
    pub(crate) x: Axis,
    pub(crate) y: Axis,
    pub(crate) series: Vec<Series>,
}

/// Seconds in the unit that suits them.
pub(crate) fn seconds(value: f64) -> String {
    let (unit, factor) = match value {
        v if v < 0.999e-6 => ("ns", 1e9),
        v if v < 0.999e-3 => ("µs", 1e6),
        v if v < 0.999 => ("ms", 1e3),
        _ => ("s", 1.0),
    };
    format!("{} {unit}", short(value * factor))
}

/// A count: `10 k`, `1.5 M`.
pub(crate) fn count(value: f64) -> String {
    match value {
        v if v >= 0.999e6 => format!("{} M", short(v / 1e6)),
        v if v >= 0.999e3 => format!("{} k", short(v / 1e3)),
        v => short(v),
    }
}

/// A part of the whole.
pub(crate) fn percent(value: f64) -> String {
    format!("{} %", short(value * 100.0))
}

/// A number of ticks: no more than four decimals, and none that says nothing.
fn short(value: f64) -> String {
    let text = format!("{value:.4}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.to_owned()
}

/// An axis with its range and the numbers on it.
struct Ruler {
    scale: Scale,
    range: (f64, f64),
    ticks: Vec<f64>,
}

impl Ruler {
    fn new(axis: &Axis, values: impl Iterator<Item = f64> + Clone) -> Self {
        let most = values.clone().fold(f64::MIN, f64::max);
        match axis.scale {
            Scale::Linear => {
                // Four to ten parts of 1, 2 or 5 times a power of ten.
                let power = 10_f64.powf((most / 10.0).log10().floor());
                let step = [1.0, 2.0, 5.0, 10.0]
                    .map(|part| part * power)
                    .into_iter()
                    .find(|step| most / step <= 8.0)
                    .unwrap_or(most);
                let parts = (most / step).ceil();
                Self {
                    scale: Scale::Linear,
                    range: (0.0, step * parts),
                    ticks: (0..=parts as usize).map(|n| n as f64 * step).collect(),
                }
            }
            Scale::Log => {
                let least = values.fold(f64::MAX, f64::min);
                let (from, to) = (least.log10(), most.log10());
                // Decades, or their thirds where those are few.
                let parts: &[f64] = if to - from > 2.5 {
                    &[1.0]
                } else {
                    &[1.0, 2.0, 5.0]
                };
                let all: Vec<f64> = (from.floor() as i32 - 1..=to.ceil() as i32 + 1)
                    .flat_map(|decade| parts.iter().map(move |part| part * 10_f64.powi(decade)))
                    .collect();
                let low = all.iter().rposition(|tick| *tick <= least * 1.0001);
                let high = all.iter().position(|tick| *tick >= most * 0.9999);
                let (low, high) = (low.unwrap_or(0), high.unwrap_or(all.len() - 1));
                // One value only has a range too.
                let ticks = &all[low..=high.max(low + 1)];
                Self {
                    scale: Scale::Log,
                    range: (ticks[0], ticks[ticks.len() - 1]),
                    ticks: ticks.to_vec(),
                }
            }
        }
    }

    /// Where a value lies, 0 to 1.
    fn part(&self, value: f64) -> f64 {
        let (from, to) = self.range;
        match self.scale {
            Scale::Linear => (value - from) / (to - from),
            Scale::Log => (value / from).ln() / (to / from).ln(),
        }
    }
}

impl Chart<'_> {
    /// Writes the chart.
    ///
    /// # Panics
    /// If the file cannot be written, or there is nothing to draw.
    pub(crate) fn write(&self, folder: &Path) {
        std::fs::create_dir_all(folder).expect("the folder of the plots can be made");
        let path = folder.join(format!("{}.svg", self.name));
        std::fs::write(&path, self.draw()).expect("the plot is written");
        measure::say(&format!("  {}", path.display()));
    }

    fn draw(&self) -> String {
        let points = || self.series.iter().flat_map(|series| series.points.iter());
        assert!(points().next().is_some(), "there is something to draw");
        let x = Ruler::new(&self.x, points().map(|point| point.0));
        let y = Ruler::new(&self.y, points().map(|point| point.1));
        let mut svg = Svg::new();
        let [left, top, right, bottom] = FRAME;
        svg.text((left, 26.0), "start", 17, self.title);
        svg.text((left, 46.0), "start", 12, self.below);
        let at = |point: (f64, f64)| {
            (
                left + x.part(point.0) * (right - left),
                bottom - y.part(point.1) * (bottom - top),
            )
        };
        for tick in &x.ticks {
            let place = at((*tick, y.range.0)).0;
            svg.line((place, top), (place, bottom), "#ddd");
            svg.text((place, bottom + 18.0), "middle", 12, &(self.x.tick)(*tick));
        }
        for tick in &y.ticks {
            let place = at((x.range.0, *tick)).1;
            svg.line((left, place), (right, place), "#ddd");
            svg.text((left - 8.0, place + 4.0), "end", 12, &(self.y.tick)(*tick));
        }
        svg.line((left, top), (left, bottom), "#000");
        svg.line((left, bottom), (right, bottom), "#000");
        let middle = f64::midpoint(left, right);
        svg.text((middle, bottom + 44.0), "middle", 13, self.x.label);
        svg.upright((22.0, f64::midpoint(top, bottom)), self.y.label);
        let mut place = top + 10.0;
        for (number, series) in self.series.iter().enumerate() {
            let colour = COLOURS[number % COLOURS.len()];
            let places: Vec<(f64, f64)> = series.points.iter().copied().map(at).collect();
            svg.series(series.style, &places, colour);
            let key = [(right + 16.0, place), (right + 40.0, place)];
            svg.series(series.style, &key, colour);
            for line in series.name.lines() {
                svg.text((right + 48.0, place + 4.0), "start", 12, line);
                place += 16.0;
            }
            place += 8.0;
        }
        svg.finish()
    }
}

/// The text of a drawing.
struct Svg(String);

impl Svg {
    fn new() -> Self {
        let mut svg = Self(String::new());
        svg.add(format_args!(
            r#"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="DejaVu Sans, Helvetica, Arial, sans-serif">"#
        ));
        svg.add(format_args!(
            r##"<rect width="{WIDTH}" height="{HEIGHT}" fill="#fff"/>"##
        ));
        svg
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        writeln!(self.0, "{element}").expect("a string takes everything");
    }

    fn text(&mut self, (x, y): (f64, f64), anchor: &str, size: u32, text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            r#"<text x="{x:.1}" y="{y:.1}" font-size="{size}" text-anchor="{anchor}">{text}</text>"#
        ));
    }

    /// Text that reads upwards.
    fn upright(&mut self, (x, y): (f64, f64), text: &str) {
        let text = escaped(text);
        self.add(format_args!(
            r#"<text transform="translate({x:.1} {y:.1}) rotate(-90)" font-size="13" text-anchor="middle">{text}</text>"#
        ));
    }

    fn line(&mut self, (x1, y1): (f64, f64), (x2, y2): (f64, f64), colour: &str) {
        self.add(format_args!(
            r#"<line x1="{x1:.1}" y1="{y1:.1}" x2="{x2:.1}" y2="{y2:.1}" stroke="{colour}"/>"#
        ));
    }

    fn series(&mut self, style: Style, places: &[(f64, f64)], colour: &str) {
        let path: String = places
            .iter()
            .map(|(x, y)| format!("{x:.1},{y:.1} "))
            .collect();
        let dashes = if style == Style::Level { "6 4" } else { "none" };
        self.add(format_args!(
            r#"<polyline points="{}" fill="none" stroke="{colour}" stroke-width="2" stroke-dasharray="{dashes}"/>"#,
            path.trim_end()
        ));
        if style == Style::Line {
            for (x, y) in places {
                self.add(format_args!(
                    r#"<circle cx="{x:.1}" cy="{y:.1}" r="3.5" fill="{colour}"/>"#
                ));
            }
        }
    }

    fn finish(mut self) -> String {
        self.0.push_str("</svg>\n");
        self.0
    }
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
