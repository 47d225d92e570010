//! Charts as SVG, without a script: marks carry their names.

use std::fmt::Write;

use super::escaped;

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 280.0;
const LEFT: f64 = 64.0;
const RIGHT: f64 = 12.0;
const TOP: f64 = 30.0;
const BOTTOM: f64 = 46.0;

/// The numbers on an axis.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Span {
    least: f64,
    most: f64,
}

/// A chart that is being drawn.
pub(super) struct Chart {
    x: Span,
    y: Span,
    marks: String,
    keys: f64,
}

impl Span {
    /// From the least to the greatest of these, with some room where they are all alike.
    pub(super) fn of(numbers: impl IntoIterator<Item = f64>) -> Self {
        let finite = numbers.into_iter().filter(|x| x.is_finite());
        let (least, most) =
            finite.fold((f64::INFINITY, f64::NEG_INFINITY), |(a, b), x| (a.min(x), b.max(x)));
        match (least <= most, most - least > 1e-9) {
            (true, true) => Self { least, most },
            (true, false) => Self { least: least - 0.5, most: most + 0.5 },
            (false, _) => Self { least: 0.0, most: 1.0 },
        }
    }

    /// Where a number lies, from 0 to 1.
    fn place(self, x: f64) -> f64 {
        (x - self.least) / (self.most - self.least)
    }

    /// About five round numbers, and how many digits they need.
    fn ticks(self) -> (Vec<f64>, usize) {
        let rough = (self.most - self.least) / 5.0;
        let power = 10.0_f64.powf(rough.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].map(|m| m * power).into_iter().find(|s| *s >= rough);
        let step = step.unwrap_or(power);
        let first = (self.least / step).ceil() as i64;
        let last = (self.most / step + 1e-9).floor() as i64;
        let digits = (-step.log10().floor()).max(0.0) as usize;
        ((first..=last).map(|i| i as f64 * step).collect(), digits)
    }
}

impl Chart {
    /// A chart with labelled axes.
    pub(super) fn new((x_label, x): (&str, Span), (y_label, y): (&str, Span)) -> Self {
        let mut chart = Self { x, y, marks: String::new(), keys: LEFT };
        let (bottom, right) = (HEIGHT - BOTTOM, WIDTH - RIGHT);
        let (ticks, digits) = y.ticks();
        for tick in ticks {
            let at = chart.up(tick);
            chart.add(&format!(
                "<path class=\"grid\" d=\"M{LEFT} {at:.1}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
                 text-anchor=\"end\">{tick:.digits$}</text>",
                LEFT - 6.0,
                at + 4.0
            ));
        }
        let (ticks, digits) = x.ticks();
        for tick in ticks {
            chart.add(&format!(
                "<text x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{tick:.digits$}</text>",
                chart.along(tick),
                bottom + 16.0
            ));
        }
        chart.add(&format!(
            "<path class=\"axis\" d=\"M{LEFT} {TOP}V{bottom}H{right}\"/><text x=\"{:.1}\" y=\"{:.1}\" \
             text-anchor=\"middle\">{}</text><text transform=\"translate(14 {:.1}) rotate(-90)\" \
             text-anchor=\"middle\">{}</text>",
            f64::midpoint(LEFT, right),
            HEIGHT - 8.0,
            escaped(x_label),
            f64::midpoint(TOP, bottom),
            escaped(y_label)
        ));
        chart
    }

    /// A point.
    pub(super) fn dot(&mut self, [x, y]: [f64; 2], colour: &str, title: &str) {
        self.add(&format!(
            "<circle cx=\"{:.1}\" cy=\"{:.1}\" r=\"3.5\" fill=\"{colour}\"><title>{}</title></circle>",
            self.along(x),
            self.up(y),
            escaped(title)
        ));
    }

    /// A bar of width one from zero up.
    pub(super) fn bar(&mut self, x: f64, y: f64, colour: &str, title: &str) {
        let (left, right, top) = (self.along(x), self.along(x + 1.0), self.up(y));
        let (width, height) = ((right - left - 0.4).max(0.6), self.up(self.y.least) - top);
        self.add(&format!(
            "<rect x=\"{left:.2}\" y=\"{top:.1}\" width=\"{width:.2}\" height=\"{height:.1}\" \
             fill=\"{colour}\"><title>{}</title></rect>",
            escaped(title)
        ));
    }

    /// What a colour stands for.
    pub(super) fn key(&mut self, colour: &str, name: &str) {
        let (x, text) = (self.keys, escaped(name));
        self.add(&format!(
            "<circle cx=\"{:.1}\" cy=\"12\" r=\"5\" fill=\"{colour}\"/><text x=\"{:.1}\" y=\"16\">{text}</text>",
            x + 5.0,
            x + 15.0
        ));
        self.keys += 40.0 + 7.0 * name.chars().count() as f64;
    }

    /// The drawing.
    pub(super) fn svg(self) -> String {
        format!(
            "<div class=\"wide\"><svg viewBox=\"0 0 {WIDTH} {HEIGHT}\" role=\"img\">{}</svg></div>\n",
            self.marks
        )
    }

    fn add(&mut self, mark: &str) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.marks, "{mark}");
    }

    fn along(&self, x: f64) -> f64 {
        LEFT + self.x.place(x) * (WIDTH - LEFT - RIGHT)
    }

    fn up(&self, y: f64) -> f64 {
        HEIGHT - BOTTOM - self.y.place(y) * (HEIGHT - BOTTOM - TOP)
    }
}

#[cfg(test)]
mod tests {
    use super::Span;

    #[test]
    fn ticks_are_round_and_inside() {
        let (ticks, digits) = Span::of([0.93, 1.0]).ticks();
        assert_eq!(
            ticks.iter().map(|t| format!("{t:.digits$}")).collect::<Vec<_>>(),
            ["0.94", "0.96", "0.98", "1.00"]
        );
        assert_eq!(Span::of([0.0, 175.0]).ticks(), (vec![0.0, 50.0, 100.0, 150.0], 0));
        assert_eq!(Span::of([]), Span::of([0.0, 1.0]));
        assert_eq!(Span::of([3.0, 3.0]), Span::of([2.5, 3.5]));
    }
}
