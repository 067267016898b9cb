#!/bin/sh
# Builds what the image holds, as a folder. The Dockerfile and .ci/run both call this, so that what is tested is what is shipped.
# usage: docker/build.sh FOLDER
set -eu
image=$1
cargo build --release --locked --bin opspilot
install -D -m 0755 "${CARGO_TARGET_DIR:-target}/release/opspilot" "$image/usr/local/bin/opspilot"
# a volume takes its first owner and mode from here
install -d -m 0700 "$image/data"
