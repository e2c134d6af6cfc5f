//! The chart of the README: throughput and CPU time of a message as ratios to the floor, drawn as SVG.

use std::fmt::Write as _;

use crate::columns::Table;
use crate::path;

/// A drawn column: its index, title and colour.
const PANELS: [(&str, &str, &str); 3] = [
    (path::COLUMNS[0].key, "messages/s ÷ floor's: longer is better", "#2f855a"),
    (path::COLUMNS[1].key, "Redis CPU per message ÷ floor's: shorter is better", "#c05621"),
    (path::COLUMNS[2].key, "own CPU per message ÷ floor's Redis CPU: shorter is better", "#2b6cb0"),
];

const WIDTH: f64 = 720.0;
const MARGIN: f64 = 16.0;
/// Space for the names of the subjects, and for the numbers behind the bars.
const NAMES: f64 = 172.0;
const NUMBERS: f64 = 128.0;
const LINE: f64 = 20.0;
const BAR: f64 = 13.0;
const TITLE: f64 = 30.0;
const GAP: f64 = 14.0;

/// The chart of the path's table; `machine` stands below it.
pub fn svg(table: &Table, machine: &str) -> String {
    let subjects: Vec<&str> = table.subjects().collect();
    let panel_height = TITLE + subjects.len() as f64 * LINE + GAP;
    let height = 2.0 * MARGIN + PANELS.len() as f64 * panel_height + LINE;
    let mut svg = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" font-size="12">
<title>host beside bare Redis</title>
<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>
"##
    );
    for (number, panel) in PANELS.into_iter().enumerate() {
        draw(&mut svg, table, &subjects, panel, MARGIN + number as f64 * panel_height);
    }
    let bottom = height - MARGIN;
    let _ =
        writeln!(svg, r##"<text x="{MARGIN}" y="{bottom}" fill="#718096" font-size="10">{}</text>"##, text(machine));
    svg.push_str("</svg>\n");
    svg
}

/// One panel, from `top` on.
fn draw(svg: &mut String, table: &Table, subjects: &[&str], (column, title, colour): (&str, &str, &str), top: f64) {
    let ratios: Vec<f64> = (0..subjects.len()).map(|subject| table.ratio(subject, column)).collect();
    // The floor, at 1, is always visible.
    let longest = ratios.iter().copied().filter(|ratio| ratio.is_finite()).fold(1.0, f64::max);
    let room = WIDTH - 2.0 * MARGIN - NAMES - NUMBERS;
    let (zero, first) = (MARGIN + NAMES, top + TITLE);
    let _ = writeln!(
        svg,
        r##"<text x="{MARGIN}" y="{:.1}" fill="#1a202c" font-weight="bold">{}</text>"##,
        top + 16.0,
        text(title)
    );
    for (row, (name, ratio)) in subjects.iter().zip(&ratios).enumerate() {
        let y = first + row as f64 * LINE;
        let base = y + BAR - 2.0;
        let _ = writeln!(
            svg,
            r##"<text x="{:.1}" y="{base:.1}" fill="#4a5568" text-anchor="end">{}</text>"##,
            zero - 8.0,
            text(name)
        );
        if !ratio.is_finite() {
            continue;
        }
        let length = ratio / longest * room;
        let colour = if row == 0 { "#a0aec0" } else { colour };
        let _ = writeln!(
            svg,
            r#"<rect x="{zero:.1}" y="{y:.1}" width="{length:.1}" height="{BAR}" rx="2" fill="{colour}"/>"#
        );
        let median = table.median(row, column);
        let median = if median >= 1_000.0 { format!("{median:.0} /s") } else { format!("{median:.2} µs") };
        let _ = writeln!(
            svg,
            r##"<text x="{:.1}" y="{base:.1}" fill="#1a202c">{ratio:.2}<tspan fill="#718096" dx="8">{median}</tspan></text>"##,
            zero + length + 6.0,
        );
    }
    let one = zero + room / longest;
    let end = first + subjects.len() as f64 * LINE - (LINE - BAR);
    let _ = writeln!(
        svg,
        r##"<line x1="{one:.1}" x2="{one:.1}" y1="{:.1}" y2="{end:.1}" stroke="#1a202c" stroke-dasharray="2 3"/>"##,
        first - 4.0
    );
}

/// Text escaped for XML.
fn text(plain: &str) -> String {
    plain.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;")
}
