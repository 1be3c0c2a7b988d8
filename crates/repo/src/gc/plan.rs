//! Which packs go, and which are worth moving what is needed out of them. Pure: numbers in, decision out.

use super::MaxUnused;
use lastgood_model::PackId;

/// A pack that is much smaller than they are made is worth joining with others; the bound is restic's.
const SMALL_BYTES: u64 = (16 << 20) / 25;
/// So many small packs of one kind are worth it.
const SMALL_PACKS: usize = 10;

/// What is known of one pack.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct PackUse {
    pub(super) id: PackId,
    /// Its size in the store.
    pub(super) bytes: u64,
    /// Bytes of what is needed in it, with all that a pack of it takes; 0 when nothing is.
    pub(super) live_bytes: u64,
    /// Whether it must go whatever it costs: a list that was begun names it.
    pub(super) is_going: bool,
    /// Whether nothing in it may be touched: what it holds does not add up, or it is damaged.
    pub(super) is_odd: bool,
}

impl PackUse {
    fn unused(&self) -> u64 {
        self.bytes.saturating_sub(self.live_bytes)
    }
}

/// What is to be done with the packs, by their place in the list that was given.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Decision {
    /// Holding nothing that is needed.
    pub(super) dead: Vec<usize>,
    /// To be emptied, the most worthwhile first.
    pub(super) repack: Vec<usize>,
    /// Bytes that are needed, in all packs.
    pub(super) used_bytes: u64,
    /// Bytes that are not needed, in all packs, dead ones included.
    pub(super) unused_bytes: u64,
    /// Bytes to be moved.
    pub(super) move_bytes: u64,
    /// Bytes that are not needed and will stay.
    pub(super) unused_after: u64,
}

/// Decides. Packs are emptied in the order of what is gained for each byte moved, until what stays unused is at most
/// `max_unused` of what is used; and never more than `max_repack` bytes are moved, but out of packs that must go.
pub(super) fn decide(packs: &[PackUse], max_unused: MaxUnused, max_repack: Option<u64>) -> Decision {
    let mut decision = Decision::default();
    let (mut candidates, mut small) = (Vec::new(), Vec::new());
    for (n, pack) in packs.iter().enumerate() {
        decision.used_bytes += pack.live_bytes;
        decision.unused_bytes += pack.unused();
        if pack.is_odd {
            decision.unused_after += pack.unused();
        } else if pack.live_bytes == 0 {
            decision.dead.push(n);
        } else if pack.is_going {
            decision.repack.push(n);
            decision.move_bytes += pack.live_bytes;
        } else {
            decision.unused_after += pack.unused();
            if pack.bytes < SMALL_BYTES {
                small.push(n);
            } else {
                candidates.push(n);
            }
        }
    }
    let limit = max_unused.limit(decision.used_bytes);
    let joins = small.len() >= SMALL_PACKS;
    if !joins {
        candidates.append(&mut small);
    }
    candidates.retain(|n| packs[*n].unused() > 0);
    // Gained over moved, greatest first, without division.
    let worth = |a: &PackUse, b: &PackUse| {
        let left = u128::from(a.unused()) * u128::from(b.live_bytes);
        let right = u128::from(b.unused()) * u128::from(a.live_bytes);
        right.cmp(&left).then(a.id.cmp(&b.id))
    };
    candidates.sort_by(|a, b| worth(&packs[*a], &packs[*b]));
    small.sort_by(|a, b| worth(&packs[*a], &packs[*b]));
    let take = |n: usize, decision: &mut Decision| {
        let pack = &packs[n];
        if max_repack.is_some_and(|max| decision.move_bytes + pack.live_bytes > max) {
            return;
        }
        decision.repack.push(n);
        decision.move_bytes += pack.live_bytes;
        decision.unused_after -= pack.unused();
    };
    for n in candidates {
        if decision.unused_after <= limit {
            break;
        }
        take(n, &mut decision);
    }
    if joins {
        small.into_iter().for_each(|n| take(n, &mut decision));
    }
    decision
}

#[cfg(test)]
mod tests {
    use super::*;
    use lastgood_model::Id;

    const MIB: u64 = 1 << 20;

    fn packs(uses: &[(u64, u64)]) -> Vec<PackUse> {
        let pack = |(n, (bytes, live)): (usize, &(u64, u64))| PackUse {
            id: PackId(Id([n as u8; 32])),
            bytes: bytes * MIB,
            live_bytes: live * MIB,
            ..PackUse::default()
        };
        uses.iter().enumerate().map(pack).collect()
    }

    fn five() -> MaxUnused {
        MaxUnused::Percent(5.0)
    }

    #[test]
    fn dead_packs_go_and_the_emptiest_are_moved_first_until_little_is_unused() {
        let packs = packs(&[(16, 0), (16, 16), (16, 2), (16, 15), (16, 8), (160, 160)]);
        let decision = decide(&packs, five(), None);
        assert_eq!(decision.dead, [0]);
        // 201 MiB are used, so 10.5 may stay unused; 23 are, and moving 2 MiB gains 14.
        assert_eq!(decision.repack, [2]);
        assert_eq!((decision.move_bytes, decision.unused_after), (2 * MIB, 9 * MIB));
        assert_eq!(decide(&packs, MaxUnused::Percent(0.0), None).repack, [2, 4, 3]);
        assert_eq!(decide(&packs, MaxUnused::Unlimited, None).repack, [] as [usize; 0]);
        assert_eq!(decide(&packs, MaxUnused::Bytes(MIB), None).repack, [2, 4]);
    }

    #[test]
    fn a_budget_bounds_what_is_moved_and_what_fits_is_still_taken() {
        let packs = packs(&[(16, 2), (16, 8), (16, 9)]);
        let decision = decide(&packs, MaxUnused::Percent(0.0), Some(11 * MIB));
        assert_eq!((decision.repack, decision.move_bytes), (vec![0, 1], 10 * MIB));
        assert_eq!(decide(&packs, MaxUnused::Percent(0.0), Some(0)).repack, [] as [usize; 0]);
    }

    #[test]
    fn what_is_going_is_emptied_whatever_it_costs_and_what_is_odd_is_never_touched() {
        let mut packs = packs(&[(16, 16), (16, 0), (16, 1)]);
        packs[0].is_going = true;
        (packs[1].is_odd, packs[2].is_odd) = (true, true);
        let decision = decide(&packs, five(), Some(0));
        assert_eq!((decision.dead, decision.repack), (vec![], vec![0]));
    }

    #[test]
    fn small_packs_are_joined_once_there_are_many() {
        let small = |n: usize| -> Vec<PackUse> {
            let pack =
                |n| PackUse { id: PackId(Id([n as u8; 32])), bytes: 1000, live_bytes: 1000, ..PackUse::default() };
            (0..n).map(pack).collect()
        };
        assert_eq!(decide(&small(9), five(), None).repack, [] as [usize; 0]);
        assert_eq!(decide(&small(10), five(), None).repack.len(), 10);
    }
}
