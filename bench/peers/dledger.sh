#!/usr/bin/env bash
# Starts a DLedger group of three of Apache RocketMQ from the jars that Maven has fetched, and measures with rmqbench how long
# clients go without when its leader is killed. All of it is ended by process id.
#
#   bench/peers/dledger.sh DIR [more flags of rmqbench failover]
#
# DIR must not exist. FLUSH is async (default) or sync, HEAP -Xms and -Xmx of each broker (1g).
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1; shift
. bench/peers/lib.sh
flush=${FLUSH:-async} heap=${HEAP:-1g}
mkdir "$dir"
at=$(cd "$dir" && pwd)
# Nodes that rmqbench has started again are nobody's children: all that is ours has the folder in its command line.
ours() { grep -lzxF -e "-Drocketmq.home.dir=$at" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 || true; }
stop() { local p; for p in $(ours); do kill -9 "$p" 2>/dev/null || true; done; }
trap stop EXIT

port=$((20000 + RANDOM % 10000)) # below the ports that outgoing connections get
namesrv
dledger
await 3
bin/rmqbench failover --target="127.0.0.1:$port" --repl=raft --flush="$flush" --out "$at/run" "$@"
