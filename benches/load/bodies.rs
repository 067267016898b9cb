//! What is sent: log lines of a small shop, about 190 bytes each, one in a thousand of which matches a rule.

use std::time::{SystemTime, UNIX_EPOCH};

/// xorshift: the same lines in every run.
pub struct Rng(pub u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

fn message(rng: &mut Rng) -> String {
    if rng.below(1000) == 0 {
        return format!("payment failed for order {} gateway=stripe attempt={}", rng.below(10_000_000), rng.below(5));
    }
    match rng.below(8) {
        0 => format!("GET /api/v1/orders/{} 200 in {} ms trace={:016x}", rng.below(10_000_000), rng.below(900), rng.next()),
        1 => format!(
            "POST /cart/{}/items sku={} qty={} user={}",
            rng.below(1_000_000),
            rng.below(99_999),
            rng.below(9),
            rng.below(5_000_000)
        ),
        2 => format!(
            "user {} logged in from 10.{}.{}.{} session={:016x}",
            rng.below(5_000_000),
            rng.below(256),
            rng.below(256),
            rng.below(256),
            rng.next()
        ),
        3 => format!(
            "cache hit ratio {}.{}% keys={} evicted={} shard={}",
            rng.below(100),
            rng.below(10),
            rng.below(1_000_000),
            rng.below(999),
            rng.below(64)
        ),
        4 => format!(
            "payment authorised order={} amount={}.{:02} EUR provider=adyen ref={:08x}",
            rng.below(10_000_000),
            rng.below(900),
            rng.below(100),
            rng.below(1 << 32)
        ),
        5 => format!("consumer group=orders-{} committed offset {} on partition {}", rng.below(20), rng.below(1 << 34), rng.below(48)),
        6 => format!(
            "query took {} ms rows={} table=order_items_{} plan={:08x}",
            rng.below(300),
            rng.below(5000),
            rng.below(12),
            rng.below(1 << 32)
        ),
        _ => format!("job {:016x} finished state=done items={} duration={}ms", rng.next(), rng.below(10_000), rng.below(60_000)),
    }
}

const SOURCES: [&str; 12] =
    ["checkout", "cart", "auth", "payments", "search", "inventory", "shipping", "gateway", "billing", "catalog", "email", "scheduler"];
const SEVERITIES: [&str; 10] = ["info", "info", "info", "info", "info", "info", "debug", "debug", "warning", "error"];

/// `pool` bodies of `lines` lines each.
pub fn pool(lines: usize, pool: usize) -> Vec<Vec<u8>> {
    let mut rng = Rng(0x9e37_79b9_7f4a_7c15 ^ lines as u64);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis() as i64;
    let mut at = now - (pool * lines) as i64 * 2;
    (0..pool)
        .map(|_| {
            let mut body = String::new();
            for _ in 0..lines {
                at += rng.below(3) as i64;
                let timestamp = opspilot_kernel::time::Timestamp::from_millis(at);
                body.push_str(&format!(
                    r#"{{"source":"{}","timestamp":"{timestamp}","severity":"{}","message":"{}","labels":{{"host":"h{}","pod":"p-{}"}}}}"#,
                    SOURCES[rng.below(12) as usize],
                    SEVERITIES[rng.below(10) as usize],
                    message(&mut rng),
                    rng.below(40),
                    rng.below(1000)
                ));
                body.push('\n');
            }
            body.into_bytes()
        })
        .collect()
}
