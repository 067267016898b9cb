#!/bin/sh
# Runs what docker/build.sh made the way the image does, as far as that goes without a container: nothing in the environment,
# nobody's user where we may change it, and the health check as the only witness.
# usage: docker/try.sh FOLDER
set -eu
image=$1
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d)
pid=
end() {
    if [ -n "$pid" ]; then kill "$pid" 2>/dev/null || true; wait "$pid" 2>/dev/null || true; fi
    rm -rf "$folder"
}
trap end EXIT

# the base image has libc and libgcc, and nothing else to link to
if ldd "$image/usr/local/bin/opspilot" | grep -vE 'linux-vdso|ld-linux|lib(c|m|gcc_s|dl|pthread|rt)\.so'; then
    echo "the binary needs a library that the image does not have" >&2
    exit 1
fi

cp "$image/usr/local/bin/opspilot" "$here/opspilot.yaml" "$folder/"
cp -r "$image/data" "$folder/data"
nobody=
if [ "$(id -u)" = 0 ] && command -v setpriv >/dev/null; then
    chmod 0755 "$folder"
    chown -R 65532:65532 "$folder/data"
    nobody="setpriv --reuid=65532 --regid=65532 --clear-groups --no-new-privs --bounding-set=-all --inh-caps=-all"
fi
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
cd "$folder"
# shellcheck disable=SC2086
env -i $nobody "$folder/opspilot" serve --config "$folder/opspilot.yaml" --data "$folder/data" --listen "127.0.0.1:$port" 2>"$folder/log" >/dev/null &
pid=$!
for _ in $(seq 1 100); do
    if env -i OPSPILOT_URL="http://127.0.0.1:$port" "$folder/opspilot" health --live >/dev/null 2>&1; then
        env -i OPSPILOT_URL="http://127.0.0.1:$port" "$folder/opspilot" health
        kill "$pid"
        wait "$pid"
        pid=
        echo "the image's binary runs, answers the health check, and stops in order"
        exit 0
    fi
    kill -0 "$pid" || break
    sleep 0.1
done
cat "$folder/log" >&2
echo "the image's binary does not answer the health check" >&2
exit 1
