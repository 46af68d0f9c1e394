//! The table of a group: medians, and their ratios to the reference's.

use std::fmt;

/// What one side of a group measured.
#[derive(Clone, Debug)]
pub struct Row {
    name: String,
    goal: Option<f64>,
    best: f64,
    median: f64,
    ninth_decile: f64,
}

impl Row {
    /// Makes a row of samples in nanoseconds; there is at least one.
    pub(crate) fn new(name: &str, goal: Option<f64>, mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |tenths| *at_tenth(&samples, tenths).expect("because there is at least one");
        Self {
            name: name.to_owned(),
            goal,
            best: at(0),
            median: at(5),
            ninth_decile: at(9),
        }
    }

    /// Returns the median of the samples, in nanoseconds.
    #[must_use]
    pub const fn median_nanos(&self) -> f64 {
        self.median
    }
}

/// Returns the element at so many tenths of a sorted list.
pub(crate) fn at_tenth<T>(sorted: &[T], tenths: usize) -> Option<&T> {
    sorted.get(sorted.len().checked_sub(1)? * tenths / 10)
}

/// What a group measured; shown as a Markdown table.
#[derive(Clone, Debug)]
pub struct Report {
    name: String,
    reference: Option<usize>,
    rows: Vec<Row>,
}

impl Report {
    /// Makes a report whose rows are compared with the fastest of the references.
    pub(crate) fn new(name: &str, references: &[usize], rows: Vec<Row>) -> Self {
        let median = |index: &usize| rows[*index].median;
        let reference = references.iter().copied();
        let reference = reference.min_by(|one, other| median(one).total_cmp(&median(other)));
        Self {
            name: name.to_owned(),
            reference,
            rows,
        }
    }

    /// Returns the rows in the order in which their sides were added.
    #[must_use]
    pub fn rows(&self) -> &[Row] {
        &self.rows
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let reference = self.reference.map(|index| &self.rows[index]);
        let unit = unit_of(&self.rows);
        let (name, unit_name) = (&self.name, unit.name);
        let against = reference.map_or("nothing", |row| row.name.as_str());
        writeln!(
            f,
            "| {name:<32} | best {unit_name} | median {unit_name} | p90 {unit_name} | ratio to {against} | goal |"
        )?;
        writeln!(f, "|:---|---:|---:|---:|---:|---:|")?;
        for row in &self.rows {
            write!(
                f,
                "| {} | {:.1} | {:.1} | {:.1} |",
                row.name,
                row.best / unit.nanos,
                row.median / unit.nanos,
                row.ninth_decile / unit.nanos
            )?;
            match reference {
                Some(reference) => write!(f, " {:.2} |", row.median / reference.median)?,
                None => write!(f, " |")?,
            }
            match row.goal {
                Some(goal) => writeln!(f, " {goal:.2} |")?,
                None => writeln!(f, " |")?,
            }
        }
        Ok(())
    }
}

struct Unit {
    name: &'static str,
    nanos: f64,
}

/// Picks the unit in which the fastest side has at least one digit before the point.
fn unit_of(rows: &[Row]) -> Unit {
    let fastest = rows
        .iter()
        .map(|row| row.median)
        .fold(f64::INFINITY, f64::min);
    let (name, nanos) = if fastest < 10_000.0 {
        ("ns", 1.0)
    } else if fastest < 10_000_000.0 {
        ("µs", 1_000.0)
    } else {
        ("ms", 1_000_000.0)
    };
    Unit { name, nanos }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_table_has_medians_and_their_ratios_to_the_reference() {
        let rows = vec![
            Row::new("old", None, vec![30.0, 10.0, 20.0]),
            Row::new("new", Some(0.9), vec![5.0, 90.0, 10.0]),
        ];
        let table = Report::new("copy", &[0], rows).to_string();
        let lines: Vec<&str> = table.lines().skip(1).collect();
        assert_eq!(
            lines,
            [
                "|:---|---:|---:|---:|---:|---:|",
                "| old | 10.0 | 20.0 | 20.0 | 1.00 | |",
                "| new | 5.0 | 10.0 | 10.0 | 0.50 | 0.90 |",
            ]
        );
    }

    #[test]
    fn of_several_references_the_fastest_one_is_compared_with() {
        let rows = vec![
            Row::new("one thread", None, vec![40.0]),
            Row::new("two threads", None, vec![20.0]),
            Row::new("new", Some(0.6), vec![10.0]),
        ];
        let table = Report::new("copy", &[0, 1], rows).to_string();
        assert!(table.contains("| ratio to two threads |"), "{table}");
        assert!(
            table.contains("| new | 10.0 | 10.0 | 10.0 | 0.50 | 0.60 |"),
            "{table}"
        );
    }

    #[test]
    fn slow_work_is_shown_in_larger_units() {
        for (nanos, text) in [
            (9_000.0, "9000.0"),
            (90_000.0, "90.0"),
            (90_000_000.0, "90.0"),
        ] {
            let table = Report::new("copy", &[], vec![Row::new("side", None, vec![nanos])]);
            assert!(table.to_string().contains(text), "{table}");
        }
    }
}
