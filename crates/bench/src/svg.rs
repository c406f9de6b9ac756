//! A picture in SVG whose colours follow the reader's choice of light or dark, which charting libraries write into each element.

use std::{fmt::Write as _, fs, path::Path};

use anyhow::{Context as _, Result};

/// Colours in light and dark: text, lesser text, grid, keysweep, its rivals, and the ends of the scale.
const STYLE: &str = "\
text{font:13px sans-serif;fill:#1f2328;stroke:#ffffff;stroke-width:3px;paint-order:stroke}.title{font-size:17px;font-weight:600}.lesser{fill:#59636e}\
.paper{fill:#ffffff}.grid{stroke:#d8dee4}.leader{stroke:#8c959f}\
polyline.ours{fill:none;stroke:#00705c;stroke-width:2}polyline.rival{fill:none;stroke:#b35900;stroke-width:2}\
polyline.other{fill:none;stroke:#6e7781;stroke-width:2}.dashed{stroke-dasharray:5 4}\
.ours{fill:#00705c}.rival{fill:#b35900}.other{fill:#6e7781}\
@media(prefers-color-scheme:dark){text{fill:#e6edf3;stroke:#0d1117}.lesser{fill:#9198a1}.paper{fill:#0d1117}.grid{stroke:#30363d}\
.leader{stroke:#656c76}.ours{fill:#3fc9a7}.rival{fill:#f0a04b}.other{fill:#9198a1}\
polyline.ours{stroke:#3fc9a7}polyline.rival{stroke:#f0a04b}polyline.other{stroke:#9198a1}}";

/// Side of a text at which its position is.
#[derive(Debug, Clone, Copy)]
pub enum Anchor {
    /// The text begins there.
    Start,
    /// The middle of the text is there.
    Middle,
    /// The text ends there.
    End,
}

/// A picture.
pub struct Picture {
    width: f64,
    height: f64,
    body: String,
}

impl Picture {
    /// Returns an empty picture of this size, pixels.
    pub fn new(width: f64, height: f64) -> Self {
        Self { width, height, body: String::new() }
    }

    /// Adds a text; `y` is its middle.
    pub fn text(&mut self, class: &str, (x, y): (f64, f64), anchor: Anchor, text: &str) {
        let anchor = match anchor {
            Anchor::Start => "start",
            Anchor::Middle => "middle",
            Anchor::End => "end",
        };
        let text = text.replace('&', "&amp;").replace('<', "&lt;");
        // A third of its size below the middle is where a line of text rests.
        self.add(format_args!(
            r#"<text class="{class}" x="{x:.1}" y="{:.1}" text-anchor="{anchor}">{text}</text>"#,
            y + 4.5
        ));
    }

    /// Adds a line.
    pub fn line(&mut self, class: &str, from: (f64, f64), to: (f64, f64)) {
        let ((x1, y1), (x2, y2)) = (from, to);
        self.add(format_args!(r#"<path class="{class}" d="M{x1:.1} {y1:.1}L{x2:.1} {y2:.1}"/>"#));
    }

    /// Adds a line through several points.
    pub fn polyline(&mut self, class: &str, points: &[(f64, f64)]) {
        let points: Vec<String> = points.iter().map(|(x, y)| format!("{x:.1},{y:.1}")).collect();
        self.add(format_args!(r#"<polyline class="{class}" points="{}"/>"#, points.join(" ")));
    }

    /// Adds a filled rectangle.
    pub fn rectangle(&mut self, class: &str, (x, y): (f64, f64), (width, height): (f64, f64)) {
        self.add(format_args!(
            r#"<rect class="{class}" x="{x:.1}" y="{y:.1}" width="{width:.1}" height="{height:.1}"/>"#
        ));
    }

    /// Adds a filled circle.
    pub fn point(&mut self, class: &str, (x, y): (f64, f64)) {
        self.add(format_args!(r#"<circle class="{class}" cx="{x:.1}" cy="{y:.1}" r="5"/>"#));
    }

    fn add(&mut self, element: std::fmt::Arguments<'_>) {
        // Writing to a string cannot fail.
        let _ = writeln!(self.body, "{element}");
    }

    /// Writes the picture to a file. `description`: what it shows, for readers who do not see it.
    pub fn write(&self, path: &Path, description: &str) -> Result<()> {
        let Self { width, height, body } = self;
        let text = format!(
            "<svg xmlns=\"http://www.w3.org/2000/svg\" viewBox=\"0 0 {width} {height}\" width=\"{width}\" height=\"{height}\" role=\"img\">\n\
             <title>{description}</title>\n<style>{STYLE}</style>\n\
             <rect class=\"paper\" width=\"{width}\" height=\"{height}\"/>\n{body}</svg>\n"
        );
        fs::write(path, text).with_context(|| format!("{} cannot be written", path.display()))
    }
}
