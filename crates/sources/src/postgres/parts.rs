//! How the rows of tables are cut into parts, and in which order these are read.

/// Pages in a slab: 32 MiB of a table with pages of 8 KiB.
pub const SLAB_PAGES: u64 = 4096;

/// A range of a table's pages.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Slab {
    /// Its number in the table, from 0.
    pub(super) number: u32,
    /// What of the table it is.
    pub(super) range: Range,
}

/// What of a table a slab is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Range {
    /// All of it.
    All,
    /// Pages from the first up to but without the second.
    Pages(u64, u64),
    /// Pages from this one to wherever the table ends.
    From(u64),
}

impl Range {
    /// The condition on `ctid` that selects it; nothing for all rows.
    pub(super) fn condition(self) -> Option<String> {
        match self {
            Self::All => None,
            Self::Pages(from, to) => Some(format!("ctid >= '({from},0)' AND ctid < '({to},0)'")),
            Self::From(from) => Some(format!("ctid >= '({from},0)'")),
        }
    }
}

/// Cuts a table of `pages` pages, always from page 0, so that a slab in which nothing changed is the same bytes again.
/// The last one is open at its end. A table that fits into one slab, however small, is that slab.
pub(super) fn slabs(pages: u64, slab_pages: u64) -> Vec<Slab> {
    let slab_pages = slab_pages.max(1);
    let count = pages.div_ceil(slab_pages).max(1);
    let range = |number: u64| match (number, count) {
        (0, 1) => Range::All,
        (n, count) if n + 1 == count => Range::From(n * slab_pages),
        (n, _) => Range::Pages(n * slab_pages, (n + 1) * slab_pages),
    };
    (0..count).map(|number| Slab { number: number as u32, range: range(number) }).collect()
}

/// The order in which tables of these sizes are read: the largest first, so that no worker begins a long one when the
/// others have nothing left; equal ones in the order given.
pub(super) fn largest_first(sizes: &[u64]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..sizes.len()).collect();
    order.sort_by_key(|at| std::cmp::Reverse(sizes[*at]));
    order
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slabs_count_from_page_0_and_the_last_is_open() {
        assert_eq!(slabs(0, 4), [Slab { number: 0, range: Range::All }]);
        assert_eq!(slabs(4, 4), [Slab { number: 0, range: Range::All }]);
        let five = slabs(5, 4);
        assert_eq!(five.iter().map(|s| s.range).collect::<Vec<_>>(), [Range::Pages(0, 4), Range::From(4)]);
        let twelve = slabs(12, 4);
        assert_eq!(
            twelve.iter().map(|s| s.range).collect::<Vec<_>>(),
            [Range::Pages(0, 4), Range::Pages(4, 8), Range::From(8)]
        );
        assert_eq!(twelve[2].number, 2);
    }

    #[test]
    fn every_page_is_in_exactly_one_slab() {
        for pages in [0u64, 1, 2, 3, 7, 8, 9, 100] {
            for slab_pages in [1u64, 2, 3, 8, 1000] {
                for page in 0..pages + 3 {
                    let holds = |slab: &&Slab| match slab.range {
                        Range::All => true,
                        Range::Pages(from, to) => from <= page && page < to,
                        Range::From(from) => from <= page,
                    };
                    assert_eq!(slabs(pages, slab_pages).iter().filter(holds).count(), 1, "{pages} {slab_pages} {page}");
                }
            }
        }
    }

    #[test]
    fn a_slab_keeps_its_place_when_the_table_grows() {
        let (small, large) = (slabs(9, 4), slabs(13, 4));
        assert_eq!(small[..2], large[..2]);
    }

    #[test]
    fn the_largest_table_comes_first() {
        assert_eq!(largest_first(&[1, 9, 5, 9]), [1, 3, 2, 0]);
    }
}
