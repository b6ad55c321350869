//! Frames of samples against logged call sites: which are right, wrong, unknown or missing.

use std::collections::BTreeMap;

use formats::capture::Tier;
use recorder::v8::V8;

/// A frame as text to compare: function, file, line, tier.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Seen {
    Js { function: u32, position: Option<u32>, tier: Tier, inlined: bool },
    Unknown(String),
}

/// Compares the k-th sample with the k-th line of `log` and prints the sums.
pub(crate) fn compare(v8: &V8, samples: &[Vec<Seen>], log: &str) {
    let text = std::fs::read_to_string(log).unwrap();
    let logs: Vec<serde_json::Value> =
        text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    println!("samples {} logs {}", samples.len(), logs.len());
    let (mut frames, mut right, mut wrong, mut unknown, mut whole, mut short) = (0, 0, 0, 0, 0, 0);
    let mut lines: BTreeMap<(u8, bool), (u64, u64, u64)> = BTreeMap::new();
    let mut shown = 0;
    let mut evals = 0;
    let mut whys: BTreeMap<String, u64> = BTreeMap::new();
    for (sample, log) in samples.iter().zip(&logs) {
        let wanted: Vec<&Vec<serde_json::Value>> = log
            .as_array()
            .unwrap()
            .iter()
            .map(|site| site.as_array().unwrap())
            .filter(|site| site[4] == 0 && site[5] == 0 && (site[1] != "" || site[7] == 1))
            .collect();
        let name = |seen: &Seen| match seen {
            Seen::Js { function, .. } => {
                String::from_utf8_lossy(&v8.function(*function).unwrap().name).into_owned()
            }
            Seen::Unknown(why) => format!("? {why}"),
        };
        // Above the probe's own frame is os.uptime.
        let Some(from) = sample.iter().position(|seen| name(seen) == "probe") else {
            short += 1;
            if shown < 3 {
                shown += 1;
                println!("no probe frame: {:?}", sample.iter().map(name).collect::<Vec<_>>());
            }
            continue;
        };
        let got = &sample[from..];
        let mut bad = got.len() != wanted.len();
        let file_and_name = |seen: &Seen| match seen {
            Seen::Js { function, .. } => {
                let function = v8.function(*function).unwrap();
                let script = function.script.and_then(|script| v8.script(script));
                let file = script.map(|s| String::from_utf8_lossy(&s.name).into_owned());
                Some((file.unwrap_or_default(), name(seen)))
            }
            Seen::Unknown(_) => None,
        };
        let close = |seen: &Seen, site: &[serde_json::Value]| {
            file_and_name(seen).is_some_and(|(file, name)| {
                site[1] == *file && (site[0] == *name || name.is_empty() || site[0] == "")
            })
        };
        // Frames that are missing on one side must not make the others look wrong.
        let (pairs, extras) = align(got.len(), wanted.len(), |a, b| close(&got[a], wanted[b]));
        let paired: Vec<usize> = pairs.iter().map(|(a, _)| *a).collect();
        let claimed = |at: &usize| !paired.contains(at) && matches!(got[*at], Seen::Js { .. });
        let claims = (0..got.len()).filter(claimed).count() as u32;
        wrong += claims;
        unknown += extras - claims;
        frames += extras;
        for (index, (seen, site)) in pairs.into_iter().map(|(a, b)| (a, (&got[a], &wanted[b]))) {
            frames += 1;
            let Seen::Js { function, position, tier, inlined } = seen else {
                unknown += 1;
                *whys.entry(name(seen)).or_default() += 1;
                bad = true;
                continue;
            };
            let function = v8.function(*function).unwrap();
            let script = function.script.and_then(|script| v8.script(script));
            let file = script.map(|s| String::from_utf8_lossy(&s.name).into_owned());
            let place = position.zip(script).and_then(|(at, script)| script.place(at));
            let log_place = (site[2].as_u64().unwrap() as u32, site[3].as_u64().unwrap() as u32);
            let own = String::from_utf8_lossy(&function.name).into_owned();
            let (log_name, method) = (site[0].as_str().unwrap(), site[6].as_str().unwrap());
            // V8 gives `Object.foo` or `get foo` to what it inferred; a name V8 derives from the
            // property that holds the function is no name of the function.
            let same_name = own == log_name
                || log_name.ends_with(&format!(" {own}"))
                || log_name.ends_with(&format!(".{own}"))
                || own.ends_with(&format!(".{log_name}"))
                || (!method.is_empty() && own.ends_with(method))
                || (log_name.is_empty() && function.inferred);
            let same_place = place == Some(log_place);
            let same_file = file.as_deref().unwrap_or("") == site[1].as_str().unwrap();
            // V8 calls a nameless function of an eval `eval`: only the empty file name agrees.
            if own.is_empty() && log_name == "eval" && site[7] == 1 && !same_place && same_file {
                evals += 1;
                right += 1;
            } else if same_file && (same_name || (same_place && index > 0)) {
                right += 1;
            } else {
                wrong += 1;
                bad = true;
                if shown < 30 {
                    shown += 1;
                    println!(
                        "WRONG {own:?} {file:?} {place:?} tier {} inlined {inlined}, log {site:?}",
                        tier.0
                    );
                }
            }
            if index > 0 {
                let line = lines.entry((tier.0, *inlined)).or_default();
                line.0 += 1;
                line.1 += u64::from(place.is_some_and(|p| p.0 == log_place.0));
                line.2 += u64::from(same_place);
            }
        }
        if bad {
            whole += 1;
            if shown < 30 {
                shown += 1;
                println!(
                    "LENGTH got {} {:?}\n  wanted {} {:?}",
                    got.len(),
                    got.iter().map(name).collect::<Vec<_>>(),
                    wanted.len(),
                    wanted.iter().map(|s| s[0].as_str().unwrap()).collect::<Vec<_>>()
                );
            }
        }
    }
    let n = samples.len().min(logs.len());
    println!(
        "FRAMES {frames} right {right} ({:.4} %) wrong {wrong} unknown {unknown}; stacks {n} not whole {} ({:.3} % whole) without probe {short}",
        right as f64 * 100.0 / f64::from(frames.max(1)),
        whole + short,
        (n - whole - short) as f64 * 100.0 / n.max(1) as f64
    );
    println!("  of them eval by place unverified {evals}; unknown {whys:?}");
    for ((tier, inlined), (all, line, column)) in lines {
        println!(
            "LINES tier {tier} inlined {inlined}: {all} frames, line right {:.3} %, column too {:.3} %",
            line as f64 * 100.0 / all as f64,
            column as f64 * 100.0 / all as f64
        );
    }
}

/// Pairs of positions in two lists that make the fewest differences, and how many of the first
/// list have no partner.
fn align(n: usize, m: usize, same: impl Fn(usize, usize) -> bool) -> (Vec<(usize, usize)>, u32) {
    if n == m {
        return ((0..n).map(|at| (at, at)).collect(), 0);
    }
    let mut cost = vec![vec![0u32; m + 1]; n + 1];
    for a in (0..=n).rev() {
        for b in (0..=m).rev() {
            let one = |by| cost[a + usize::from(by != 1)][b + usize::from(by != 0)];
            cost[a][b] = match (a == n, b == m) {
                (true, true) => 0,
                (true, false) => one(1) + 2,
                (false, true) => one(0) + 2,
                _ => (one(0) + 2).min(one(1) + 2).min(one(2) + if same(a, b) { 0 } else { 3 }),
            };
        }
    }
    let (mut a, mut b, mut pairs, mut extras) = (0, 0, Vec::new(), 0);
    while a < n || b < m {
        let step = if a < n && b < m { if same(a, b) { 0 } else { 3 } } else { 1000 };
        if step < 1000 && cost[a][b] == cost[a + 1][b + 1] + step {
            pairs.push((a, b));
            (a, b) = (a + 1, b + 1);
        } else if a < n && cost[a][b] == cost[a + 1][b] + 2 {
            extras += 1;
            a += 1;
        } else {
            b += 1;
        }
    }
    (pairs, extras)
}
