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
jars=test/interop/wire/java/target/server54
flush=${FLUSH:-async} heap=${HEAP:-1g}
mkdir "$dir"
dir=$(cd "$dir" && pwd)
export ROCKETMQ_HOME=$dir
# Nodes that rmqbench has started again are nobody's children: all that is ours has the folder in its command line.
ours() { grep -lzxF -e "-Drocketmq.home.dir=$dir" /proc/[0-9]*/cmdline 2>/dev/null | cut -d/ -f3 || true; }
stop() { local p; for p in $(ours); do kill -9 "$p" 2>/dev/null || true; done; }
trap stop EXIT

launch() { # name, heap, class, configuration
	java "-Xms$2" "-Xmx$2" -XX:+UseG1GC "-XX:MaxDirectMemorySize=$2" "-Duser.home=$dir/$1" "-Drocketmq.home.dir=$dir" \
		--add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED --add-opens java.base/jdk.internal.ref=ALL-UNNAMED \
		-cp "$jars/classes:$(cat "$jars/classpath")" "$3" -c "$4" >> "$dir/$1.log" 2>&1 &
}

port=$((20000 + RANDOM % 10000))
printf '%s\n' "listenPort=$port" "kvConfigPath=$dir/kvConfig.json" > "$dir/namesrv.properties"
launch namesrv 256m org.apache.rocketmq.namesrv.NamesrvStartup "$dir/namesrv.properties"
peers=""
for i in 0 1 2; do peers+="n$i-127.0.0.1:$((port + 41 + i));"; done
for i in 0 1 2; do
	printf '%s\n' brokerClusterName=DefaultCluster brokerName=apache "flushDiskType=${flush^^}_FLUSH" "namesrvAddr=127.0.0.1:$port" \
		brokerIP1=127.0.0.1 brokerIP2=127.0.0.1 "listenPort=$((port + 10 * (i + 1)))" "storePathRootDir=$dir/store$i" \
		"storePathCommitLog=$dir/store$i/commitlog" diskMaxUsedSpaceRatio=95 enableDLegerCommitLog=true dLegerGroup=apache \
		"dLegerPeers=${peers%;}" "dLegerSelfId=n$i" > "$dir/broker$i.conf"
	launch "broker$i" "$heap" org.apache.rocketmq.broker.BrokerStartup "$dir/broker$i.conf"
done
for _ in $(seq 240); do
	table=$(bin/mqadmin clusterList -n "127.0.0.1:$port" 2>/dev/null || true)
	if [ "$(grep -c " apache " <<< "$table")" = 3 ] && grep -qE " apache +0 " <<< "$table"; then
		bin/rmqbench failover --target="127.0.0.1:$port" --repl=raft --flush="$flush" --out "$dir/run" "$@"
		exit
	fi
	sleep 0.5
done
echo "Apache's brokers do not register; see $dir/*.log" >&2
exit 1
