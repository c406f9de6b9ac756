//! Places the labels of a chart so that none covers another one or a point.

/// Height of a label, pixels.
pub const HEIGHT: f64 = 16.0;
/// Width of a character on average, pixels; sans-serif at 13 pixels is narrower nearly everywhere.
const CHARACTER: f64 = 7.2;
/// Half of the square that a point takes, pixels.
const POINT: f64 = 7.0;
/// Distance from a point to its label, pixels.
const GAP: f64 = 9.0;
/// Steps in which a label that finds no room moves away from its point, pixels.
const STEP: f64 = 6.0;
/// Steps at most.
const STEPS: u32 = 80;

/// A rectangle, pixels from the top left corner.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Area {
    /// Left edge.
    pub x: f64,
    /// Upper edge.
    pub y: f64,
    /// Width.
    pub width: f64,
    /// Height.
    pub height: f64,
}

impl Area {
    /// Whether two rectangles share more than an edge.
    pub fn covers(&self, other: &Self) -> bool {
        let apart =
            |start: f64, length: f64, other: f64, others: f64| start + length <= other || other + others <= start;
        !apart(self.x, self.width, other.x, other.width) && !apart(self.y, self.height, other.y, other.height)
    }

    /// Whether this rectangle lies within another one.
    pub fn is_within(&self, other: &Self) -> bool {
        self.x >= other.x
            && self.y >= other.y
            && self.x + self.width <= other.x + other.width
            && self.y + self.height <= other.y + other.height
    }

    /// Returns the point of this rectangle that is nearest to another point.
    pub fn nearest(&self, (x, y): (f64, f64)) -> (f64, f64) {
        (x.clamp(self.x, self.x + self.width), y.clamp(self.y, self.y + self.height))
    }

    fn around((x, y): (f64, f64)) -> Self {
        Self { x: x - POINT, y: y - POINT, width: 2.0 * POINT, height: 2.0 * POINT }
    }
}

/// Returns the width that a text takes, pixels.
pub fn width(text: &str) -> f64 {
    text.chars().count() as f64 * CHARACTER
}

/// Returns where the label of each point goes, in the order of the points: beside it, or else as near as there is room.
pub fn place(points: &[((f64, f64), String)], within: Area) -> Vec<Area> {
    let mut taken: Vec<Area> = points.iter().map(|(point, _)| Area::around(*point)).collect();
    let mut placed = Vec::with_capacity(points.len());
    for (point, text) in points {
        let label = candidates(*point, width(text))
            .find(|label| label.is_within(&within) && !taken.iter().any(|other| other.covers(label)))
            .unwrap_or(Area { x: point.0, y: point.1, width: width(text), height: HEIGHT });
        taken.push(label);
        placed.push(label);
    }
    placed
}

/// Returns places for a label, the nearest first.
fn candidates((x, y): (f64, f64), width: f64) -> impl Iterator<Item = Area> {
    let (right, left, middle) = (x + GAP, x - GAP - width, x - width / 2.0);
    let beside = y - HEIGHT / 2.0;
    (0..STEPS).flat_map(move |step| {
        let away = f64::from(step) * STEP;
        let (above, below) = (y - HEIGHT - GAP - away, y + GAP + away);
        let places = [
            (right + away, beside),
            (left - away, beside),
            (right, above + GAP),
            (right, below - GAP),
            (left, above + GAP),
            (left, below - GAP),
            (middle, above),
            (middle, below),
        ];
        places.into_iter().map(move |(x, y)| Area { x, y, width, height: HEIGHT })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_label_covers_another_one_or_a_point_however_dense_the_points_are() {
        let within = Area { x: 60.0, y: 40.0, width: 820.0, height: 330.0 };
        let mut random = fastrand::Rng::with_seed(13);
        for case in 0..500 {
            let spread = if case % 2 == 0 { 1.0 } else { 0.25 };
            let points: Vec<((f64, f64), String)> = (0..12)
                .map(|number| {
                    let at = |from: f64, length: f64, share: f64| from + length * (0.3 + 0.4 * spread * share);
                    let point = (at(60.0, 820.0, random.f64()), at(40.0, 330.0, random.f64()));
                    (point, "x".repeat(10 + number % 20))
                })
                .collect();
            let labels = place(&points, within);
            for (index, label) in labels.iter().enumerate() {
                assert!(label.is_within(&within), "case {case}: {label:?} leaves the panel");
                assert!(!labels[..index].iter().any(|other| other.covers(label)), "case {case}: labels overlap");
                assert!(!points.iter().any(|(point, _)| Area::around(*point).covers(label)), "case {case}: a point");
            }
        }
    }
}
