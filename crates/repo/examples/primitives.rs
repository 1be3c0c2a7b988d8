//! Measures on one core what the pipeline is made of, over the content of a real file:
//! `cargo run --release -p lastgood-repo --example primitives -- FILE [FILTER]`.
//!
//! Each figure is GB/s of plain bytes, the best of several passes.
#![expect(clippy::print_stdout, reason = "prints figures for people")]

use aws_lc_rs::cipher::{AES_256, EncryptingKey, EncryptionContext, UnboundCipherKey};
use lastgood_model::source::Chunking;
use lastgood_repo::chunk::{ChunkParams, Cutter, Polynomial, is_zero};
use lastgood_repo::sha256::{sha256, sha256_many, sha256_pair};
use poly1305::universal_hash::KeyInit as _;
use std::hint::black_box;
use std::time::{Duration, Instant};

type Outcome = Result<(), Box<dyn std::error::Error>>;

/// Content beyond this many bytes is not used.
const MAX_BYTES: usize = 256 << 20;
/// Each primitive is repeated for about so long.
const LONG_ENOUGH: Duration = Duration::from_millis(1500);

fn main() -> Outcome {
    let mut args = std::env::args().skip(1);
    let file = args.next().ok_or("usage: primitives FILE [FILTER]")?;
    let filter = args.next().unwrap_or_default();
    let mut data = fs_err::read(&file)?;
    data.truncate(MAX_BYTES);
    println!("{file}: {} bytes", data.len());
    let bench = Bench { data: &data, filter: &filter };

    hashes(&bench);
    cutters(&bench)?;
    seals(&bench)?;
    compression(&bench)
}

struct Bench<'a> {
    data: &'a [u8],
    filter: &'a str,
}

impl Bench<'_> {
    fn wants(&self, name: &str) -> bool {
        name.contains(self.filter)
    }

    /// Runs `pass` over and over, each time over `bytes` of content, and prints the best; `pass` returns a remark.
    fn run(&self, name: &str, bytes: usize, mut pass: impl FnMut() -> String) {
        if !self.wants(name) {
            return;
        }
        let (start, mut best, mut remark) = (Instant::now(), Duration::MAX, String::new());
        while best == Duration::MAX || start.elapsed() < LONG_ENOUGH {
            let begun = Instant::now();
            remark = pass();
            best = best.min(begun.elapsed());
        }
        println!("{name:<32} {:>7.2} GB/s  {remark}", bytes as f64 / best.as_secs_f64() / 1e9);
    }
}

fn hashes(bench: &Bench<'_>) {
    let Bench { data, .. } = *bench;
    for (size, label) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
        bench.run(&format!("sha256 single, {label}"), data.len(), || {
            for piece in data.chunks(size) {
                black_box(sha256(piece));
            }
            String::new()
        });
        bench.run(&format!("sha256 pair, {label}"), data.len(), || {
            for pair in data.chunks(2 * size) {
                black_box(sha256_pair(&pair[..size.min(pair.len())], pair.get(size..).unwrap_or_default()));
            }
            String::new()
        });
        for count in [4, 8, 16] {
            bench.run(&format!("sha256 many, {count} x {label}"), data.len(), || {
                for group in data.chunks(count * size) {
                    let messages: Vec<&[u8]> = group.chunks(size).collect();
                    black_box(sha256_many(&messages));
                }
                String::new()
            });
        }
    }
}

fn cutters(bench: &Bench<'_>) -> Outcome {
    let Bench { data, .. } = *bench;
    let params = ChunkParams::new(Polynomial(0x3d_a335_8b4d_c173), &[7; 32])?;
    for (name, chunking) in [("rabin (files)", Chunking::Files), ("gear (rows)", Chunking::Rows)] {
        for piece in [64 << 10, 1 << 20, usize::MAX] {
            let label = if piece == usize::MAX { "whole".to_owned() } else { format!("{} KiB pieces", piece >> 10) };
            let mut cutter = Cutter::new(chunking, &params)?;
            bench.run(&format!("{name}, {label}"), data.len(), || {
                cutter.reset();
                let mut chunks = 1;
                for mut rest in data.chunks(piece) {
                    while let Some(cut) = cutter.next_cut(black_box(rest)) {
                        rest = &rest[cut..];
                        chunks += 1;
                    }
                }
                format!("{chunks} chunks of {} KiB", (data.len() / chunks) >> 10)
            });
        }
    }
    let zeros = vec![0; 64 << 20];
    bench.run("is_zero on zeros", zeros.len(), || is_zero(black_box(&zeros)).to_string());
    let small = vec![0; 512 << 10];
    bench.run("is_zero on 512 KiB zeros", small.len(), || is_zero(black_box(&small)).to_string());
    bench.run("is_zero per 4 KiB of content", data.len(), || {
        format!("{} zero pieces", data.chunks(4096).filter(|piece| is_zero(piece)).count())
    });
    Ok(())
}

fn seals(bench: &Bench<'_>) -> Outcome {
    let mut data = bench.data.to_vec();
    let key = UnboundCipherKey::new(&AES_256, &[1; 32]).and_then(EncryptingKey::ctr)?;
    for (size, label) in [(16 << 10, "16 KiB"), (1 << 20, "1 MiB")] {
        let mut failure = None;
        bench.run(&format!("AES-256-CTR in place, {label}"), data.len(), || {
            for piece in data.chunks_mut(size) {
                let sealed = key.less_safe_encrypt(piece, EncryptionContext::Iv128([2; 16].into()));
                failure = sealed.err().or(failure);
            }
            String::new()
        });
        failure.map_or(Ok(()), Err)?;
        bench.run(&format!("Poly1305, {label}"), data.len(), || {
            for piece in data.chunks(size) {
                black_box(poly1305::Poly1305::new(&[3; 32].into()).compute_unpadded(piece));
            }
            String::new()
        });
    }
    Ok(())
}

fn compression(bench: &Bench<'_>) -> Outcome {
    let Bench { data, .. } = *bench;
    for (size, label) in [(64 << 10, "64 KiB"), (1 << 20, "1 MiB")] {
        let mut out = vec![0; zstd::zstd_safe::compress_bound(size)];
        for level in [-5, -1, 1, 2, 3, 6] {
            let mut compressor = zstd::bulk::Compressor::new(level)?;
            let mut failure = None;
            bench.run(&format!("zstd {level}, {label}"), data.len(), || {
                let mut stored = 0;
                for piece in data.chunks(size) {
                    match compressor.compress_to_buffer(piece, &mut out[..]) {
                        Ok(length) => stored += length,
                        Err(error) => failure = Some(error),
                    }
                }
                format!("ratio {:.3}", data.len() as f64 / stored as f64)
            });
            failure.map_or(Ok(()), Err)?;
        }
        let mut compressor = zstd::bulk::Compressor::new(1)?;
        let frames = data.chunks(size).map(|piece| compressor.compress(piece)).collect::<Result<Vec<_>, _>>()?;
        let mut decompressor = zstd::bulk::Decompressor::new()?;
        let mut failure = None;
        bench.run(&format!("zstd decode of level 1, {label}"), data.len(), || {
            for frame in &frames {
                failure = decompressor.decompress_to_buffer(frame, &mut out[..]).err().or(failure.take());
            }
            String::new()
        });
        failure.map_or(Ok(()), Err)?;
    }
    Ok(())
}
