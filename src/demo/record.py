#!/usr/bin/env python3
"""Writes outage.ndjson: ten minutes of a small shop, in which the database's disk fills up.

The root cause: the archive of the database's log cannot be written, so the log piles up on the
database's own disk until nothing can be written at all. Payments lose their connections, checkout
fails, the gateway answers 502. The red herring: a deploy of inventory and a cold cache, a minute
before, which change nothing.

Run it again and the same file comes out: python3 record.py > outage.ndjson
"""
import json
import random
from datetime import datetime, timedelta, timezone

START = datetime(2026, 3, 14, 9, 20, tzinfo=timezone.utc)
MINUTES = 10
FULL, FREED, READY = 300.0, 450.0, 468.0  # seconds: disk full, space freed, database up again
dice = random.Random(20260314)
events = []


def put(at, source, message=None, severity="info", labels=None, name=None, value=None, unit=None):
    event = {"timestamp": (START + timedelta(seconds=round(at, 3))).isoformat(timespec="milliseconds").replace("+00:00", "Z")}
    event["source"] = source
    if name:
        event.update(name=name, value=round(value, 2))
        if unit:
            event["unit"] = unit
    else:
        event["message"] = message
    if severity != "info":
        event["severity"] = severity
    if labels:
        event["labels"] = labels
    events.append((at, len(events), event))


def down(at):
    return FULL <= at < READY


def requests():
    at, order = 0.0, 48200
    while at < MINUTES * 60:
        at += dice.expovariate(1 / 1.6)
        order += dice.randint(1, 3)
        amount = dice.randint(900, 24000) / 100
        if down(at):
            put(at, "payments", "could not get a connection to db:5432 within 5s: pool exhausted (0 idle, 20 waiting)", "error", {"pool": "orders"})
            put(at + 0.02, "checkout", f"payment failed for order {order}: payments answered 503 after 5003 ms", "error", {"region": "eu-1"})
            if dice.random() < 0.5:
                put(at + 0.03, "gateway", f'POST /checkout 502 5011ms request={dice.randrange(16**8):08x}', "error")
        else:
            took = dice.randint(40, 130)
            put(at, "gateway", f'POST /checkout 200 {took}ms request={dice.randrange(16**8):08x}')
            if dice.random() < 0.6:
                put(at + 0.01, "checkout", f"order {order} placed, {amount:.2f} EUR", labels={"region": "eu-1"})
            if dice.random() < 0.35:
                put(at + 0.02, "payments", f"captured {amount:.2f} EUR for order {order} in {took // 2} ms")
            if dice.random() < 0.3:
                put(at + 0.03, "inventory", f"reserved {dice.randint(1, 4)} items for order {order}")


def herring():
    put(92, "inventory", "deploy: version 2.14.1 replaces 2.14.0 on 2 of 2 instances", labels={"version": "2.14.1"})
    put(94, "inventory", "starting, version 2.14.1", labels={"version": "2.14.1"})
    put(95, "inventory", "cache is cold, warming 12000 items")
    for at in (101, 116, 131, 146, 161, 176):
        ratio = 41 + (at - 101) * 0.6
        put(at, "inventory", f"cache hit ratio {ratio:.0f}% is below 90%, reading through to db", "warning", {"cache": "items"})
    put(190, "inventory", "cache is warm, hit ratio 96%")


def database():
    for at in range(20, 300, 55):
        put(at, "db", f"checkpoint complete: wrote {dice.randint(300, 900)} buffers, {dice.randint(2, 5)} WAL files added")
    for number, at in enumerate(range(126, 300, 24)):
        segment = f"0000000100000A{0x40 + number:02X}"
        put(at, "db", f"archive command failed with exit code 1: cp pg_wal/{segment} /archive/: Input/output error", "warning")
    put(272, "db", "free space on /var/lib/postgresql is 1.1 GiB of 40 GiB", "warning")
    at = FULL
    while at < FREED:
        put(at, "db", "PANIC: could not write to file pg_wal/xlogtemp.4242: No space left on device", "critical", {"mount": "/var/lib/postgresql"})
        put(at + 0.4, "db", "server process was terminated by signal 6, restarting", "error")
        at += dice.uniform(9, 14)
    put(FREED, "db", "archive volume is mounted again, 214 WAL segments archived and removed")
    put(FREED + 3, "db", "database system was not properly shut down; automatic recovery in progress", "warning")
    put(READY, "db", "database system is ready to accept connections")
    put(READY + 1, "payments", "connected to db:5432, pool is full again (20 idle)", labels={"pool": "orders"})


def disk(at):
    if at < 126:
        return 84.0 + at * 0.004
    if at < FULL:
        return 84.5 + (at - 126) / (FULL - 126) * 15.5
    if at < FREED:
        return 100.0
    return max(61.0, 100.0 - (at - FREED) * 3)


def metrics():
    for at in range(0, MINUTES * 60, 10):
        at = float(at)
        noise = dice.uniform(-1, 1)
        put(at + 0.1, "db", name="disk_used_percent", value=min(100.0, disk(at)), unit="%", labels={"mount": "/var/lib/postgresql"})
        put(at + 0.2, "db", name="connections", value=0 if down(at) else 24 + 3 * noise)
        put(at + 0.3, "gateway", name="http_error_percent", value=44 + 9 * noise if down(at) else max(0, 0.4 + 0.4 * noise), unit="%")
        put(at + 0.4, "gateway", name="latency_p95_ms", value=5010 + 15 * noise if down(at) else 118 + 20 * noise, unit="ms")
        put(at + 0.5, "checkout", name="orders_per_minute", value=0 if down(at) else 37 + 4 * noise)
        put(at + 0.6, "inventory", name="cpu_percent", value=(62 if 94 < at < 190 else 21) + 5 * noise, unit="%")


requests()
herring()
database()
metrics()
events.sort(key=lambda event: event[:2])
for _, _, event in events:
    if datetime.fromisoformat(event["timestamp"].replace("Z", "+00:00")) < START + timedelta(minutes=MINUTES):
        print(json.dumps(event, ensure_ascii=False, separators=(",", ":")))
