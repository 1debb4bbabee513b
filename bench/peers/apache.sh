#!/usr/bin/env bash
# Measures our brokers and those of Apache RocketMQ in turn, in one run of rmqbench for each mode: starts Apache's
# NameServer and brokers from the jars that Maven has fetched (make bench-apache), warms the JVMs up, stops them while
# ours are measured (SIGSTOP), and ends them by their ids. Ratios of ours to Apache's are printed after each run.
#
#   bench/peers/apache.sh DIR [more flags of rmqbench run]
#
# DIR must not exist; the stores of both lie in it. Without flags each mode is measured with 4 and 16 producers of 64
# messages in flight, and with one message in flight. Environment:
#
#   REPL   modes: none, async (master and slave), sync (dual write), raft (DLedger, three nodes); several with commas (none)
#   FLUSH  of the matrix and of Apache's brokers: async, sync; several with commas (async)
#   HEAP   -Xms and -Xmx of each broker (2g, replicated 1g)
#   WARM   load before the first block (60s)
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1; shift
warm=${WARM:-60s}
. bench/peers/lib.sh
jvm=-XX:+AlwaysPreTouch
mkdir "$dir"
dir=$(cd "$dir" && pwd)
stop() { kill -CONT "${pids[@]}" 2>/dev/null || true; for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; wait "${pids[i]}" 2>/dev/null || true; done; pids=(); }
trap stop EXIT

measure() { # mode
	local repl=$1
	shift
	at=$dir/$repl-$flush
	mkdir "$at"
	heap=${HEAP:-$([ "$repl" = none ] && echo 2g || echo 1g)}
	port=$((20000 + RANDOM % 10000)) # below the ports that outgoing connections get
	namesrv
	case $repl in
	none)
		broker 0 brokerId=0 brokerRole=ASYNC_MASTER
		await 1 ;;
	async | sync)
		broker 0 brokerId=0 "brokerRole=${repl^^}_MASTER" "inSyncReplicas=$([ "$repl" = sync ] && echo 2 || echo 1)"
		await 1
		broker 1 brokerId=1 brokerRole=SLAVE
		await 2 ;;
	raft)
		dledger
		await 3 ;;
	*)
		echo "REPL=$repl is unknown: use none, async, sync or raft" >&2
		return 2 ;;
	esac
	bin/rmqbench run --driver=wire --target="127.0.0.1:$port" --repl="$repl" --flush="$flush" --producers=4 --window=64 --rate=max --duration="$warm" \
		--warmup=1s --reps=1 --no-probe --max-bytes=16GiB --label=warm-up --out "$at/warm-up" > /dev/null
	if [ $# -gt 0 ]; then
		compare run "$@"
	else
		compare run --producers=4,16 --window=64 --rate=max --reps=6 --max-bytes=2GiB
		compare one --producers=1 --window=1 --rate=max --reps=6 --max-bytes=2GiB
	fi
	stop
}

compare() { # name of the run, flags
	local out=$at/$1
	shift
	bin/rmqbench run --driver=wire --target="own,127.0.0.1:$port" --repl="$repl" --flush="$flush" --out "$out" \
		--target-pids="$(IFS=,; echo "${pids[*]}")" "$@"
	bin/rmqbench compare "$out" --by=target=own
}

for flush in $(tr , ' ' <<< "${FLUSH:-async}"); do
	for repl in $(tr , ' ' <<< "${REPL:-none}"); do
		measure "$repl" "$@"
	done
done
