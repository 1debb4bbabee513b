#!/usr/bin/env bash
# Measures our broker and that of Apache RocketMQ in turn, in one run of rmqbench: starts Apache's NameServer and
# broker from the jars that Maven has fetched (make bench-apache), warms the JVM up, and ends both by their ids.
#
#   bench/peers/apache.sh DIR [more flags of rmqbench run]
#
# DIR must not exist; the stores of both lie in it. Environment: HEAP (-Xms and -Xmx of the broker, 2g), WARM (60s),
# FLUSH of the matrix and of Apache's broker (async).
set -euo pipefail
cd "$(dirname "$0")/../.."
dir=$1; shift
heap=${HEAP:-2g} warm=${WARM:-60s} flush=${FLUSH:-async}
jars=test/interop/wire/java/target/server54
mkdir "$dir"
dir=$(cd "$dir" && pwd)
port=$(python3 -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])' 2>/dev/null || echo 39876)
pids=()
stop() { for ((i = ${#pids[@]} - 1; i >= 0; i--)); do kill "${pids[i]}" 2>/dev/null || true; wait "${pids[i]}" 2>/dev/null || true; done; }
trap stop EXIT
cat > "$dir/namesrv.properties" <<END
listenPort=$port
kvConfigPath=$dir/kvConfig.json
END
cat > "$dir/broker.conf" <<END
brokerClusterName=DefaultCluster
brokerName=apache
brokerId=0
brokerRole=ASYNC_MASTER
flushDiskType=${flush^^}_FLUSH
namesrvAddr=127.0.0.1:$port
brokerIP1=127.0.0.1
listenPort=$((port + 3))
haListenPort=$((port + 4))
storePathRootDir=$dir/store
storePathCommitLog=$dir/store/commitlog
diskMaxUsedSpaceRatio=95
END
run() { # heap, class, configuration
	java "-Xms$1" "-Xmx$1" -XX:+UseG1GC "-XX:MaxDirectMemorySize=$1" -XX:+AlwaysPreTouch -Duser.home="$dir" -Drocketmq.home.dir="$dir" \
		--add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED --add-opens java.base/jdk.internal.ref=ALL-UNNAMED \
		-cp "$jars/classes:$(cat "$jars/classpath")" "$2" -c "$3" >> "$dir/$2.log" 2>&1 &
	pids+=($!)
}
export ROCKETMQ_HOME=$dir
run 256m org.apache.rocketmq.namesrv.NamesrvStartup "$dir/namesrv.properties"
run "$heap" org.apache.rocketmq.broker.BrokerStartup "$dir/broker.conf"
for _ in $(seq 120); do
	bin/mqadmin clusterList -n "127.0.0.1:$port" 2>/dev/null | grep -q apache && break
	sleep 0.5
done
bin/rmqbench run --driver=wire --target="127.0.0.1:$port" --flush="$flush" --producers=4 --window=64 --rate=max --duration="$warm" --warmup=1s --reps=1 \
	--no-probe --max-bytes=16GiB --label=warm-up --out "$dir/warm-up" > /dev/null
bin/rmqbench run --driver=wire --target="own,127.0.0.1:$port" --flush="$flush" --out "$dir/run" "$@"
