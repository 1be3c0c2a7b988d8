//! Files read and written with many requests in flight, so that a far server is as fast as a near one.

use super::channel::{Channel, Reply};
use super::wire::{self, Packet};
use crate::bridge::Pulse;
use bytes::Bytes;
use lastgood_model::{Error, Result};
use std::collections::VecDeque;

/// Bytes asked for or sent and not answered, for one call.
const IN_FLIGHT_BYTES_MAX: usize = 8 << 20;
/// Requests in flight, for one call.
const IN_FLIGHT_MAX: usize = 64;

fn in_flight(piece: usize) -> usize {
    (IN_FLIGHT_BYTES_MAX / piece.max(1)).clamp(2, IN_FLIGHT_MAX)
}

/// Appends `length` bytes from `offset` of an open file to `out`.
///
/// # Errors
/// [`lastgood_model::ErrorKind::Corrupt`] when the file ends before.
pub(super) async fn read(
    channel: &Channel,
    handle: &Bytes,
    (offset, length): (u64, usize),
    out: &mut Vec<u8>,
    path: &str,
    pulse: &Pulse,
) -> Result<()> {
    let piece = channel.read_bytes;
    let ask = |at: usize, bytes: usize| {
        channel.ask(Packet::new(wire::READ).text(handle).u64(offset + at as u64).u32(bytes as u32))
    };
    let (mut asked, mut flying) = (0, VecDeque::new());
    // What a server says of a length is not believed before the bytes come.
    out.reserve_exact(length.min(64 << 20));
    while asked < length || !flying.is_empty() {
        while asked < length && flying.len() < in_flight(piece) {
            let bytes = piece.min(length - asked);
            flying.push_back((asked, bytes, ask(asked, bytes).await?));
            asked += bytes;
        }
        let Some((mut at, mut left, mut answer)) = flying.pop_front() else { break };
        // A server may send less than it was asked for.
        loop {
            match answer.reply(pulse).await? {
                Reply::Data(data) if !data.is_empty() && data.len() <= left => {
                    out.extend_from_slice(&data);
                    at += data.len();
                    left -= data.len();
                }
                Reply::Status(status) if status.code != wire::EOF => return Err(status.error("read", path)),
                _ => return Err(Error::corrupt(format!("{path} ends before byte {offset}+{length}"))),
            }
            if left == 0 {
                break;
            }
            answer = ask(at, left).await?;
        }
    }
    Ok(())
}

/// Writes `parts` in order to an open file from its beginning, makes them durable where the server can, and closes it,
/// whatever happened.
pub(super) async fn write(channel: &Channel, handle: &Bytes, parts: &[&[u8]], path: &str, pulse: &Pulse) -> Result<()> {
    let written = write_all(channel, handle, parts, path, pulse).await;
    // Not before all are answered: a flush that overtakes a write says nothing about it.
    let flush = channel.offers.fsync && written.is_ok();
    let flushed = match flush {
        true => Some(channel.ask(Packet::extended("fsync@openssh.com").text(handle)).await?),
        false => None,
    };
    let closed = channel.ask(Packet::new(wire::CLOSE).text(handle)).await?;
    let flushed = match flushed {
        Some(answer) => answer.reply(pulse).await?.done("flush", path),
        None => Ok(()),
    };
    let closed = closed.reply(pulse).await?.done("close", path);
    written.and(flushed).and(closed)
}

async fn write_all(channel: &Channel, handle: &Bytes, parts: &[&[u8]], path: &str, pulse: &Pulse) -> Result<()> {
    let (mut at, mut flying) = (0u64, VecDeque::new());
    let bound = in_flight(channel.write_bytes);
    for pieces in gather(parts, channel.write_bytes) {
        if flying.len() >= bound
            && let Some(oldest) = flying.pop_front()
        {
            answered(oldest, path, pulse).await?;
        }
        let bytes: usize = pieces.iter().map(|piece| piece.len()).sum();
        flying.push_back(channel.ask(Packet::write(handle, at, &pieces)).await?);
        at += bytes as u64;
    }
    for answer in flying {
        answered(answer, path, pulse).await?;
    }
    Ok(())
}

async fn answered(answer: super::channel::Answer<'_>, path: &str, pulse: &Pulse) -> Result<()> {
    answer.reply(pulse).await?.done("write", path)
}

/// Cuts what all parts are together into messages of at most so many bytes, without copying.
fn gather<'a>(parts: &[&'a [u8]], bytes_max: usize) -> Vec<Vec<&'a [u8]>> {
    let mut messages = vec![Vec::new()];
    let mut room = bytes_max;
    for part in parts {
        let mut left = *part;
        while !left.is_empty() {
            if room == 0 {
                messages.push(Vec::new());
                room = bytes_max;
            }
            let (now, later) = left.split_at(left.len().min(room));
            if let Some(last) = messages.last_mut() {
                last.push(now);
            }
            room -= now.len();
            left = later;
        }
    }
    messages.retain(|message| !message.is_empty());
    messages
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_gathered_into_full_messages() {
        let parts: [&[u8]; 5] = [b"", b"abc", b"defgh", b"", b"i"];
        let joined: Vec<Vec<u8>> = gather(&parts, 4).iter().map(|m| m.concat()).collect();
        assert_eq!(joined, [b"abcd".to_vec(), b"efgh".to_vec(), b"i".to_vec()]);
        assert!(gather(&[b""], 4).is_empty());
    }
}
