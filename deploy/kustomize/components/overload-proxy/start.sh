#!/bin/sh
# Runs HAProxy. When the certificate is renewed, and every RELOAD_S seconds, a new process takes over:
# callers reconnect, and so find new gateways. The gateway has drained when this is told to stop.
set -eu
if [ -f "${CERTIFICATES}/tls.crt" ]; then
    export TLS="$CERTIFICATES"
fi
haproxy -W -db -f "$CONFIG" &
proxy=$!
trap 'kill -TERM "$proxy"; wait "$proxy" || true; exit 0' TERM INT USR1
loaded=$(cat "$CERTIFICATES"/* 2>/dev/null | cksum)
age=0
while kill -0 "$proxy" 2>/dev/null; do
    sleep 5 &
    wait $!
    age=$((age + 5))
    found=$(cat "$CERTIFICATES"/* 2>/dev/null | cksum)
    if [ "$found" != "$loaded" ] || [ "$age" -ge "$RELOAD_S" ]; then
        kill -USR2 "$proxy"
        loaded=$found age=0
    fi
done
exit 1
