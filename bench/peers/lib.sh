# Sourced by the scripts beside it: what it takes to run Apache RocketMQ from the jars that Maven has fetched. The caller
# sets at (the folder of the run), port (of the NameServer), heap and flush of brokers, and jvm, more flags of every JVM.
jars=test/interop/wire/java/target/server54
pids=() # of what was launched

launch() { # name, heap, class, configuration
	java "-Xms$2" "-Xmx$2" -XX:+UseG1GC "-XX:MaxDirectMemorySize=$2" ${jvm:-} "-Duser.home=$at/$1" "-Drocketmq.home.dir=$at" \
		--add-opens java.base/java.nio=ALL-UNNAMED --add-opens java.base/sun.nio.ch=ALL-UNNAMED --add-opens java.base/jdk.internal.ref=ALL-UNNAMED \
		-cp "$jars/classes:$(cat "$jars/classpath")" "$3" -c "$4" >> "$at/$1.log" 2>&1 &
	pids+=($!)
}

namesrv() {
	export ROCKETMQ_HOME=$at
	printf '%s\n' "listenPort=$port" "kvConfigPath=$at/kvConfig.json" > "$at/namesrv.properties"
	launch namesrv 256m org.apache.rocketmq.namesrv.NamesrvStartup "$at/namesrv.properties"
}

broker() { # number, more lines of the configuration
	local n=$1 listen=$((port + 10 * ($1 + 1)))
	shift
	printf '%s\n' brokerClusterName=DefaultCluster brokerName=apache "flushDiskType=${flush^^}_FLUSH" "namesrvAddr=127.0.0.1:$port" \
		brokerIP1=127.0.0.1 brokerIP2=127.0.0.1 "listenPort=$listen" "haListenPort=$((listen + 1))" "storePathRootDir=$at/store$n" \
		"storePathCommitLog=$at/store$n/commitlog" diskMaxUsedSpaceRatio=95 "$@" > "$at/broker$n.conf"
	launch "broker$n" "$heap" org.apache.rocketmq.broker.BrokerStartup "$at/broker$n.conf"
}

dledger() { # a group of three
	local peers="" i
	for i in 0 1 2; do peers+="n$i-127.0.0.1:$((port + 41 + i));"; done
	for i in 0 1 2; do broker $i enableDLegerCommitLog=true dLegerGroup=apache "dLegerPeers=${peers%;}" "dLegerSelfId=n$i"; done
}

await() { # how many brokers, one of them a master
	local table=""
	for _ in $(seq 240); do
		table=$(bin/mqadmin clusterList -n "127.0.0.1:$port" 2>/dev/null || true)
		if [ "$(grep -c " apache " <<< "$table")" = "$1" ] && grep -qE " apache +0 " <<< "$table"; then return; fi
		sleep 0.5
	done
	echo "Apache's brokers do not register; see $at/*.log" >&2
	return 1
}
