use super::*;
use crate::sha256::sha256;
use lastgood_model::ErrorKind;
use proptest::prelude::*;

/// From a repository made by restic 0.14.
const POLYNOMIAL: u64 = 0x3a_eee0_7502_c5d7;

/// How restic cut 16 MiB of `noise(1)` in that repository.
const GOLDEN_FILES: &[usize] = &[
    1_980_359, 1_467_100, 979_908, 632_782, 2_928_380, 2_824_987, 1_829_258, 1_639_911, 761_489, 1_026_491, 601_073,
    105_478,
];

/// How this engine has always cut 400,000 bytes of `noise(3)` with seed 7.
const GOLDEN_ROWS: &[usize] = &[30_311, 58_753, 96_037, 58_548, 59_792, 59_114, 37_445];

fn params() -> ChunkParams {
    ChunkParams::new(Polynomial(POLYNOMIAL), &[7; 32]).unwrap()
}

fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed;
    let words = std::iter::repeat_with(|| {
        // SplitMix64
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = state;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    });
    let mut data: Vec<u8> = words.take(length.div_ceil(8)).flat_map(u64::to_le_bytes).collect();
    data.truncate(length);
    data
}

/// Lengths of all chunks when `data` comes in pieces of the given lengths, over and over.
fn lengths(chunking: Chunking, data: &[u8], pieces: &[usize]) -> Vec<usize> {
    let mut cutter = Cutter::new(chunking, &params()).unwrap();
    let mut lengths = Vec::new();
    let mut pieces = pieces.iter().cycle();
    let mut rest = data;
    while !rest.is_empty() {
        let (mut piece, later) = rest.split_at(rest.len().min(*pieces.next().unwrap()));
        rest = later;
        while !piece.is_empty() {
            let before = cutter.pending();
            let Some(cut) = cutter.next_cut(piece) else {
                assert_eq!(cutter.pending(), before + piece.len());
                break;
            };
            assert_eq!(cutter.pending(), 0);
            assert!((1..=piece.len()).contains(&cut));
            lengths.push(before + cut);
            piece = &piece[cut..];
        }
    }
    if cutter.pending() > 0 {
        lengths.push(cutter.pending());
    }
    assert_eq!(lengths.iter().sum::<usize>(), data.len());
    lengths
}

/// restic's rule in its plainest words, with a window slid over every byte.
fn rabin_by_the_book(data: &[u8]) -> Vec<usize> {
    let tables = RabinTables::new(Polynomial(POLYNOMIAL)).unwrap();
    let mut lengths = Vec::new();
    let (mut digest, mut start) = (0, 0);
    for (i, &byte) in data.iter().enumerate() {
        digest = tables.slide(digest, byte, if i < rabin::WINDOW { 0 } else { data[i - rabin::WINDOW] });
        let length = i + 1 - start;
        if length >= rabin::MIN_BYTES && digest & rabin::MASK == 0 || length == rabin::MAX_BYTES {
            lengths.push(length);
            start = i + 1;
        }
    }
    if start < data.len() {
        lengths.push(data.len() - start);
    }
    lengths
}

/// Random, then a text of few words, then zeros with a few bytes among them.
fn mixture() -> Vec<u8> {
    let mut data = noise(1, 6_000_000);
    for i in 0..400_000_u32 {
        data.extend_from_slice(format!("{},row,{}\n", i % 1000, i * 7 % 13).as_bytes());
    }
    data.resize(data.len() + 3_000_000, 0);
    data.extend_from_slice(b"x");
    data.resize(data.len() + 700_000, 0);
    data.extend_from_slice(&noise(2, 1_000_000));
    data
}

#[test]
fn files_are_cut_where_restic_cut_them() {
    let data = noise(1, 16 << 20);
    for pieces in [&[usize::MAX][..], &[1 << 19], &[4096], &[777]] {
        assert_eq!(lengths(Chunking::Files, &data, pieces), GOLDEN_FILES);
    }
}

#[test]
fn files_are_cut_as_the_book_says() {
    let data = mixture();
    assert_eq!(lengths(Chunking::Files, &data, &[usize::MAX]), rabin_by_the_book(&data));
}

#[test]
fn zeros_in_a_file_are_cut_every_512_kib() {
    let data = vec![0; 3 * ZERO_CHUNK_BYTES + 5];
    assert_eq!(lengths(Chunking::Files, &data, &[100_000]), [ZERO_CHUNK_BYTES, ZERO_CHUNK_BYTES, ZERO_CHUNK_BYTES, 5]);
}

#[test]
fn a_file_without_any_cut_is_cut_at_8_mib() {
    // The same byte again and again gives one fingerprint only, and it is not a cut.
    let data = vec![1; 2 * rabin::MAX_BYTES + 1];
    for pieces in [&[usize::MAX][..], &[65_536], &[1_000_003]] {
        assert_eq!(lengths(Chunking::Files, &data, pieces), [rabin::MAX_BYTES, rabin::MAX_BYTES, 1]);
    }
}

#[test]
fn rows_average_64_kib_between_their_bounds() {
    let data = noise(3, 32 << 20);
    let lengths = lengths(Chunking::Rows, &data, &[1 << 20]);
    let (last, whole) = lengths.split_last().unwrap();
    assert!(*last <= rows::MAX_BYTES);
    assert!(whole.iter().all(|length| (rows::MIN_BYTES..=rows::MAX_BYTES).contains(length)));
    let average = data.len() / lengths.len();
    assert!((56 << 10..72 << 10).contains(&average), "{average}");
}

/// The rule in its plainest words, hashing every byte of the chunk.
fn rows_by_the_book(data: &[u8]) -> Vec<usize> {
    let table = GearTable::new(&[7; 32]);
    let mut lengths = Vec::new();
    let (mut hash, mut start) = (0, 0);
    for (i, &byte) in data.iter().enumerate() {
        hash = table.step(hash, byte);
        let length = i + 1 - start;
        let mask = if length <= rows::NORMAL_BYTES { rows::STRICT } else { rows::LENIENT };
        if length > rows::MIN_BYTES && hash & mask == 0 || length == rows::MAX_BYTES {
            lengths.push(length);
            start = i + 1;
        }
    }
    lengths.extend((start < data.len()).then(|| data.len() - start));
    lengths
}

#[test]
fn rows_are_cut_as_the_book_says() {
    let data = mixture();
    assert_eq!(lengths(Chunking::Rows, &data, &[usize::MAX]), rows_by_the_book(&data));
}

/// A change of these cuts would store every stream of rows again.
#[test]
fn cuts_of_rows_do_not_change_between_versions() {
    assert_eq!(lengths(Chunking::Rows, &noise(3, 400_000), &[usize::MAX]), GOLDEN_ROWS);
}

#[test]
fn another_seed_cuts_rows_elsewhere() {
    let data = noise(3, 400_000);
    let other = ChunkParams::new(Polynomial(POLYNOMIAL), &[8; 32]).unwrap();
    let mut cutter = Cutter::new(Chunking::Rows, &other).unwrap();
    assert_ne!(cutter.next_cut(&data), Some(GOLDEN_ROWS[0]));
}

#[test]
fn rows_find_their_cuts_again_after_an_insertion() {
    let before = noise(4, 4 << 20);
    let mut after = before[..1_000_000].to_vec();
    after.extend_from_slice(b"one more row\n");
    after.extend_from_slice(&before[1_000_000..]);
    let ids = |data: &[u8]| -> std::collections::HashSet<[u8; 32]> {
        let mut rest = data;
        lengths(Chunking::Rows, data, &[usize::MAX]).into_iter().map(|n| sha256(rest.split_off(..n).unwrap())).collect()
    };
    let (before, after) = (ids(&before), ids(&after));
    let new = after.difference(&before).count();
    assert!(new <= 6 && after.len() > 40, "{new} of {}", after.len());
}

#[test]
fn fixed_extents_are_all_alike_but_the_last() {
    assert_eq!(lengths(Chunking::Fixed(4096), &[1; 10_000], &[1, 7000, 3]), [4096, 4096, 1808]);
    assert_eq!(lengths(Chunking::Fixed(4096), &[1; 8192], &[usize::MAX]), [4096, 4096]);
    assert_eq!(lengths(Chunking::Fixed(4096), &[], &[1]), [0; 0]);
}

#[test]
fn impossible_extents_and_polynomials_are_refused() {
    for size in [0, MAX_CHUNK_BYTES as u32 + 1, u32::MAX] {
        assert_eq!(Cutter::new(Chunking::Fixed(size), &params()).unwrap_err().kind(), ErrorKind::Invalid);
    }
    let small = Polynomial(0b111);
    assert_eq!(ChunkParams::new(small, &[0; 32]).unwrap_err().kind(), ErrorKind::Unsupported);
}

/// Chunks of `head`, `zeros` zeros and `tail`, the zeros given by number only.
fn lengths_with_hole(chunking: Chunking, head: &[u8], zeros: u64, tail: &[u8]) -> Vec<u64> {
    let mut cutter = Cutter::new(chunking, &params()).unwrap();
    let mut lengths = Vec::new();
    let bytes = |cutter: &mut Cutter, mut rest: &[u8], lengths: &mut Vec<u64>| {
        while !rest.is_empty() {
            let before = cutter.pending();
            let Some(cut) = cutter.next_cut(rest) else { return };
            lengths.push((before + cut) as u64);
            rest = &rest[cut..];
        }
    };
    bytes(&mut cutter, head, &mut lengths);
    let mut left = zeros;
    while left > 0 {
        let before = cutter.pending() as u64;
        let Some(cut) = cutter.next_cut_zeros(left) else { break };
        lengths.push(before + cut);
        left -= cut;
    }
    bytes(&mut cutter, tail, &mut lengths);
    lengths.extend((cutter.pending() > 0).then(|| cutter.pending() as u64));
    lengths
}

#[test]
fn zeros_by_number_are_cut_like_zeros_as_bytes() {
    let (head, tail) = (noise(5, 700_000), noise(6, 900_000));
    for chunking in [Chunking::Files, Chunking::Rows, Chunking::Fixed(20_480)] {
        for zeros in [0, 1, 511, 300_000, 524_288, 524_289, 3_000_000] {
            let data = [&head[..], &vec![0; zeros], &tail].concat();
            let expected: Vec<u64> = lengths(chunking, &data, &[usize::MAX]).into_iter().map(|n| n as u64).collect();
            assert_eq!(lengths_with_hole(chunking, &head, zeros as u64, &tail), expected, "{chunking:?} {zeros}");
        }
    }
}

#[test]
fn a_reset_cutter_begins_anew() {
    let data = noise(7, 5_000_000);
    for chunking in [Chunking::Files, Chunking::Rows, Chunking::Fixed(65_536)] {
        let mut cutter = Cutter::new(chunking, &params()).unwrap();
        let first = cutter.next_cut(&data);
        assert_eq!(cutter.next_cut(&[9; 5000]), None);
        cutter.reset();
        assert_eq!(cutter.pending(), 0);
        assert_eq!(cutter.next_cut(&data), first);
        assert!(first.unwrap() <= cutter.max_bytes());
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]

    #[test]
    fn cuts_do_not_depend_on_the_pieces(
        seed: u64,
        length in 0_usize..5_000_000,
        pieces in prop::collection::vec(prop_oneof![1_usize..200, 1_usize..100_000, 400_000_usize..3_000_000], 1..12),
    ) {
        let mut data = noise(seed, length);
        data[length / 2..length / 4 * 3].fill(0);
        for chunking in [Chunking::Files, Chunking::Rows, Chunking::Fixed(12_288)] {
            prop_assert_eq!(lengths(chunking, &data, &pieces), lengths(chunking, &data, &[usize::MAX]));
        }
    }

    #[test]
    fn single_bytes_around_the_minimum_are_cut_like_one_piece(seed: u64, step in 1_usize..100) {
        // Chunks of exactly the minimum: zeros before and after it.
        let mut data = vec![0; rabin::MIN_BYTES - 200];
        data.extend_from_slice(&noise(seed, 150));
        data.resize(rabin::MIN_BYTES + 300, 0);
        let mut pieces = vec![rabin::MIN_BYTES - 200];
        pieces.extend(vec![step; 600 / step]);
        prop_assert_eq!(lengths(Chunking::Files, &data, &pieces), rabin_by_the_book(&data));
    }
}
