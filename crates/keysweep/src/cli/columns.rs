//! The columns of a table, cut to the width of a terminal: a row that wraps can no longer be read as one.

/// Characters around each cell.
const PADDING: usize = 2;
/// Least characters of a column that may be cut.
const LEAST: usize = 12;
/// Most characters of such a column where no terminal bounds the table.
const MOST: usize = 40;

/// The head of a column.
#[derive(Debug, Clone, Copy)]
pub struct Head {
    /// Text of the head.
    pub title: &'static str,
    /// Whether long cells may be cut.
    pub is_elastic: bool,
}

/// A table that fits.
#[derive(Debug, PartialEq, Eq)]
pub struct Fitted {
    /// Titles of the columns that are shown.
    pub titles: Vec<&'static str>,
    /// Their cells, some of them cut.
    pub rows: Vec<Vec<String>>,
    /// Titles of the columns that found no room.
    pub left_out: Vec<&'static str>,
}

/// Fits a table into a width in characters; `None`: no terminal bounds it. Columns to the left have precedence: a column for which no
/// room is left is left out, and elastic ones are cut, the widest first.
pub fn fit(heads: &[Head], rows: Vec<Vec<String>>, width: Option<usize>) -> Fitted {
    let longest = |index: usize, title: &str| {
        let cells = rows.iter().filter_map(|row| row.get(index)).map(|cell| length(cell));
        cells.chain([length(title)]).max().unwrap_or_default()
    };
    let natural: Vec<usize> = heads.iter().enumerate().map(|(index, head)| longest(index, head.title)).collect();
    let least = |index: usize| if heads[index].is_elastic { natural[index].min(LEAST) } else { natural[index] };
    let (mut shown, mut used) = (Vec::new(), 0);
    for index in 0..heads.len() {
        let needed = least(index) + PADDING;
        // The first column is shown in any case: a row without its name says nothing.
        if shown.is_empty() || width.is_none_or(|width| used + needed <= width) {
            shown.push(index);
            used += needed;
        }
    }
    let mut widths: Vec<usize> = shown
        .iter()
        .map(|&index| if heads[index].is_elastic { natural[index].min(MOST) } else { natural[index] })
        .collect();
    if let Some(width) = width {
        let room = width.saturating_sub(PADDING * shown.len());
        while widths.iter().sum::<usize>() > room {
            let cuttable = (0..shown.len()).filter(|&column| widths[column] > least(shown[column]));
            let Some(widest) = cuttable.max_by_key(|&column| widths[column]) else { break };
            widths[widest] -= 1;
        }
    }
    let row = |row: Vec<String>| {
        let cell = |(&index, &width): (&usize, &usize)| cut(row.get(index).map_or("", String::as_str), width);
        shown.iter().zip(&widths).map(cell).collect()
    };
    Fitted {
        titles: shown.iter().map(|&index| heads[index].title).collect(),
        left_out: (0..heads.len()).filter(|index| !shown.contains(index)).map(|index| heads[index].title).collect(),
        rows: rows.iter().cloned().map(row).collect(),
    }
}

fn length(text: &str) -> usize {
    text.chars().count()
}

/// Cuts a text to a number of characters, with a mark.
fn cut(text: &str, characters: usize) -> String {
    match length(text) > characters {
        true => text.chars().take(characters.saturating_sub(1)).chain(['…']).collect(),
        false => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADS: [Head; 4] = [
        Head { title: "name", is_elastic: true },
        Head { title: "status", is_elastic: false },
        Head { title: "url", is_elastic: true },
        Head { title: "keys", is_elastic: false },
    ];

    fn table(width: Option<usize>) -> Fitted {
        let long = format!("redis://{}.example", "h".repeat(60));
        let row = |cells: [&str; 4]| cells.map(str::to_owned).to_vec();
        fit(
            &HEADS,
            vec![row(["cache", "ready", &long, "1,234"]), row(["carts", "unreachable", "redis://h", "7"])],
            width,
        )
    }

    fn width_of(table: &Fitted) -> usize {
        let widest = |index: usize| {
            let cells = table.rows.iter().map(|row| length(&row[index]));
            cells.chain([length(table.titles[index])]).max().unwrap_or_default()
        };
        (0..table.titles.len()).map(|index| widest(index) + PADDING).sum()
    }

    #[test]
    fn a_long_cell_is_cut_to_the_width_and_no_further() {
        for width in [45, 60, 80] {
            let found = table(Some(width));
            assert!(width_of(&found) <= width, "{found:?}");
            assert!(found.left_out.is_empty() && found.rows[0][2].ends_with('…'), "{found:?}");
            assert_eq!((found.rows[1][1].as_str(), found.rows[1][2].as_str()), ("unreachable", "redis://h"));
        }
        assert_eq!(width_of(&table(Some(60))), 60, "all of the room is used");
    }

    #[test]
    fn a_column_without_room_is_left_out_and_one_that_still_fits_is_shown() {
        let found = table(Some(30));
        assert_eq!(
            (found.titles.as_slice(), found.left_out.as_slice()),
            (&["name", "status", "keys"][..], &["url"][..])
        );
        assert_eq!(found.rows[0], ["cache", "ready", "1,234"]);
        let found = table(Some(5));
        assert_eq!(found.titles, ["name"]);
    }

    #[test]
    fn without_a_terminal_every_column_is_shown_and_long_cells_are_bounded() {
        let found = table(None);
        assert!(found.left_out.is_empty());
        assert_eq!((length(&found.rows[0][2]), found.rows[0][3].as_str()), (MOST, "1,234"));
    }
}
