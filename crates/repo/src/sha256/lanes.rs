//! Several messages through the SHA instructions of x86-64 side by side.
//!
//! `sha256rnds2` does two rounds. The next two rounds of the same message must wait four cycles for it, but every two
//! cycles one can begin: a single message leaves half of the unit idle. Four messages fill it. The code states every
//! step for all messages next to each other and leaves the order of instructions to compiler and processor.
//!
//! Two acts are unsafe: calling code compiled for instructions that not every processor has, in one place and after
//! asking the processor; and a load of sixteen bytes from a reference to sixteen bytes.
//!
//! Algorithm: FIPS 180-4. Use of the instructions: Intel SHA Extensions (Gulley and others, 2013).
#![expect(unsafe_code, reason = "SHA instructions: called after detection, loads through references")]

use std::arch::x86_64::*;

/// Messages under way at once. Two gain half, four four fifths, six hardly more, but need more chunks at a time.
const LANES: usize = 4;
const BLOCK: usize = 64;

const INITIAL: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

#[rustfmt::skip]
const ROUND_WORDS: [u32; 64] = [
    0x428a_2f98, 0x7137_4491, 0xb5c0_fbcf, 0xe9b5_dba5, 0x3956_c25b, 0x59f1_11f1, 0x923f_82a4, 0xab1c_5ed5,
    0xd807_aa98, 0x1283_5b01, 0x2431_85be, 0x550c_7dc3, 0x72be_5d74, 0x80de_b1fe, 0x9bdc_06a7, 0xc19b_f174,
    0xe49b_69c1, 0xefbe_4786, 0x0fc1_9dc6, 0x240c_a1cc, 0x2de9_2c6f, 0x4a74_84aa, 0x5cb0_a9dc, 0x76f9_88da,
    0x983e_5152, 0xa831_c66d, 0xb003_27c8, 0xbf59_7fc7, 0xc6e0_0bf3, 0xd5a7_9147, 0x06ca_6351, 0x1429_2967,
    0x27b7_0a85, 0x2e1b_2138, 0x4d2c_6dfc, 0x5338_0d13, 0x650a_7354, 0x766a_0abb, 0x81c2_c92e, 0x9272_2c85,
    0xa2bf_e8a1, 0xa81a_664b, 0xc24b_8b70, 0xc76c_51a3, 0xd192_e819, 0xd699_0624, 0xf40e_3585, 0x106a_a070,
    0x19a4_c116, 0x1e37_6c08, 0x2748_774c, 0x34b0_bcb5, 0x391c_0cb3, 0x4ed8_aa4a, 0x5b9c_ca4f, 0x682e_6ff3,
    0x748f_82ee, 0x78a5_636f, 0x84c8_7814, 0x8cc7_0208, 0x90be_fffa, 0xa450_6ceb, 0xbef9_a3f7, 0xc671_78f2,
];

/// The round constants as four words to a register, in memory order.
static ROUND: [[u8; 16]; 16] = {
    let mut out = [[0; 16]; 16];
    let mut i = 0;
    while i < 256 {
        out[i / 16][i % 16] = ROUND_WORDS[i / 4].to_le_bytes()[i % 4];
        i += 1;
    }
    out
};

/// Writes the digest of each message to its place in `out`; false, and nothing written, when the processor lacks the
/// instructions.
pub(super) fn digests(messages: &[&[u8]], out: &mut [[u8; 32]]) -> bool {
    debug_assert_eq!(messages.len(), out.len());
    if !(is_x86_feature_detected!("sha") && is_x86_feature_detected!("sse4.1") && is_x86_feature_detected!("ssse3")) {
        return false;
    }
    // SAFETY: all features that the function is compiled for were detected above.
    unsafe { in_lanes(messages, out) };
    true
}

/// Keeps up to [`LANES`] messages under way; where one ends, the next begins.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn in_lanes(messages: &[&[u8]], out: &mut [[u8; 32]]) {
    let mut waiting = messages.iter().zip(out);
    let mut states = [State::initial(); LANES];
    let mut lanes: Vec<Lane<'_>> = waiting.by_ref().take(LANES).map(Lane::begin).collect();
    while !lanes.is_empty() {
        match lanes.len() {
            1 => advance::<1>(&mut states, &mut lanes),
            2 => advance::<2>(&mut states, &mut lanes),
            3 => advance::<3>(&mut states, &mut lanes),
            _ => advance::<LANES>(&mut states, &mut lanes),
        }
        let mut at = 0;
        while at < lanes.len() {
            if lanes[at].blocks.is_empty() {
                *lanes[at].out = finish(states[at], lanes[at].message);
                if let Some(next) = waiting.next() {
                    lanes[at] = Lane::begin(next);
                    states[at] = State::initial();
                } else {
                    lanes.swap_remove(at);
                    states[at] = states[lanes.len()];
                    continue;
                }
            }
            at += 1;
        }
    }
}

/// A message under way.
struct Lane<'a> {
    message: &'a [u8],
    /// Its whole blocks that are still to be taken.
    blocks: &'a [[u8; BLOCK]],
    out: &'a mut [u8; 32],
}

impl<'a> Lane<'a> {
    fn begin((message, out): (&&'a [u8], &'a mut [u8; 32])) -> Self {
        Self { message, blocks: message.as_chunks().0, out }
    }
}

/// Takes blocks of the `N` lanes until one of them has no more.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn advance<const N: usize>(states: &mut [State; LANES], lanes: &mut [Lane<'_>]) {
    let (Some((states, _)), Some((lanes, _))) =
        (states.split_first_chunk_mut::<N>(), lanes.split_first_chunk_mut::<N>())
    else {
        return;
    };
    let mut common = usize::MAX;
    for lane in lanes.iter() {
        common = common.min(lane.blocks.len());
    }
    let mut parts = [&lanes[0].blocks[..common]; N];
    for (part, lane) in parts.iter_mut().zip(lanes.iter()) {
        *part = &lane.blocks[..common];
    }
    // In local variables, thus in registers, from block to block.
    let mut local = *states;
    for i in 0..common {
        let mut blocks = [&parts[0][i]; N];
        for (block, part) in blocks.iter_mut().zip(parts) {
            *block = &part[i];
        }
        compress(&mut local, blocks);
    }
    *states = local;
    for lane in lanes {
        lane.blocks = &lane.blocks[common..];
    }
}

/// The digest, given the state after all whole blocks: takes in the rest of the message, a one bit, zeros, and its
/// length in bits.
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn finish(state: State, message: &[u8]) -> [u8; 32] {
    let (_, rest) = message.as_chunks::<BLOCK>();
    let mut end = [0; 2 * BLOCK];
    end[..rest.len()].copy_from_slice(rest);
    end[rest.len()] = 0x80;
    let used = if rest.len() < BLOCK - 8 { BLOCK } else { 2 * BLOCK };
    end[used - 8..used].copy_from_slice(&(message.len() as u64 * 8).to_be_bytes());
    let mut states = [state];
    for block in end[..used].as_chunks().0 {
        compress(&mut states, [block]);
    }
    let [state] = states;
    state.digest()
}

/// The eight working variables in the order that the instructions want: highest lane first, A B E F and C D G H.
#[derive(Clone, Copy)]
struct State {
    abef: __m128i,
    cdgh: __m128i,
}

impl State {
    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn initial() -> Self {
        let [a, b, c, d, e, f, g, h] = INITIAL.map(u32::cast_signed);
        Self { abef: _mm_set_epi32(a, b, e, f), cdgh: _mm_set_epi32(c, d, g, h) }
    }

    #[target_feature(enable = "sha,sse4.1,ssse3")]
    fn digest(self) -> [u8; 32] {
        let words = [
            _mm_extract_epi32::<3>(self.abef),
            _mm_extract_epi32::<2>(self.abef),
            _mm_extract_epi32::<3>(self.cdgh),
            _mm_extract_epi32::<2>(self.cdgh),
            _mm_extract_epi32::<1>(self.abef),
            _mm_extract_epi32::<0>(self.abef),
            _mm_extract_epi32::<1>(self.cdgh),
            _mm_extract_epi32::<0>(self.cdgh),
        ];
        let mut out = [0; 32];
        for (bytes, word) in out.as_chunks_mut().0.iter_mut().zip(words) {
            *bytes = word.to_be_bytes();
        }
        out
    }
}

/// Takes one block into each state.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn compress<const N: usize>(states: &mut [State; N], blocks: [&[u8; BLOCK]; N]) {
    let before = *states;
    let swap = _mm_set_epi64x(0x0c0d_0e0f_0809_0a0b, 0x0405_0607_0001_0203);
    // The last sixteen words of the message schedule, four to a register. (Loops, not closures: a closure is not
    // always compiled into its caller when that has target features of its own.)
    let mut schedule = [[_mm_setzero_si128(); 4]; N];
    for (words, block) in schedule.iter_mut().zip(blocks) {
        for (word, quarter) in words.iter_mut().zip(block.as_chunks().0) {
            *word = _mm_shuffle_epi8(load(quarter), swap);
        }
    }
    rounds::<N, 0, false>(states, &mut schedule, 0);
    rounds::<N, 1, false>(states, &mut schedule, 0);
    rounds::<N, 2, false>(states, &mut schedule, 0);
    rounds::<N, 3, false>(states, &mut schedule, 0);
    // Every index into the schedule is a constant, which keeps it in registers.
    for first in [4, 8, 12] {
        rounds::<N, 0, true>(states, &mut schedule, first);
        rounds::<N, 1, true>(states, &mut schedule, first);
        rounds::<N, 2, true>(states, &mut schedule, first);
        rounds::<N, 3, true>(states, &mut schedule, first);
    }
    for (state, before) in states.iter_mut().zip(before) {
        state.abef = _mm_add_epi32(state.abef, before.abef);
        state.cdgh = _mm_add_epi32(state.cdgh, before.cdgh);
    }
}

/// Four rounds of each state with the words at `AT`, which are first replaced by the next four of the schedule when
/// `EXTEND`. The constants are those at `first + AT`.
#[inline]
#[target_feature(enable = "sha,sse4.1,ssse3")]
fn rounds<const N: usize, const AT: usize, const EXTEND: bool>(
    states: &mut [State; N],
    schedule: &mut [[__m128i; 4]; N],
    first: usize,
) {
    let constants = load(&ROUND[first + AT]);
    for (state, words) in states.iter_mut().zip(schedule) {
        if EXTEND {
            let [old, next, recent, last] = [words[AT], words[(AT + 1) % 4], words[(AT + 2) % 4], words[(AT + 3) % 4]];
            let sum = _mm_add_epi32(_mm_sha256msg1_epu32(old, next), _mm_alignr_epi8::<4>(last, recent));
            words[AT] = _mm_sha256msg2_epu32(sum, last);
        }
        let input = _mm_add_epi32(words[AT], constants);
        state.cdgh = _mm_sha256rnds2_epu32(state.cdgh, state.abef, input);
        state.abef = _mm_sha256rnds2_epu32(state.abef, state.cdgh, _mm_shuffle_epi32::<0x0e>(input));
    }
}

#[inline]
#[target_feature(enable = "sse2")]
fn load(bytes: &[u8; 16]) -> __m128i {
    // SAFETY: the reference is good for reading sixteen bytes, and this load needs no alignment.
    unsafe { _mm_loadu_si128(bytes.as_ptr().cast()) }
}
