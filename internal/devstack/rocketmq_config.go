package devstack

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strconv"
	"strings"
)

// brokerProperties returns the settings of a small broker for development. The names are RocketMQ's.
func brokerProperties(port int, nameServer, store string) map[string]string {
	return map[string]string{
		"brokerClusterName": "DefaultCluster",
		"brokerName":        "broker-a",
		"brokerId":          "0",
		"brokerRole":        "ASYNC_MASTER",
		"flushDiskType":     "ASYNC_FLUSH",
		"brokerIP1":         "127.0.0.1",
		"bindAddress":       "127.0.0.1",
		"listenPort":        strconv.Itoa(port),
		"namesrvAddr":       nameServer,
		"storePathRootDir":  store,

		// An automatically created topic hides a mistake and has the wrong number of queues.
		"autoCreateTopicEnable":       "false",
		"autoCreateSubscriptionGroup": "true",

		// Small files and few threads: each thread that writes uses maxMessageSize of direct memory.
		"maxMessageSize":               "2097152",
		"mappedFileSizeCommitLog":      "16777216",
		"mappedFileSizeConsumeQueue":   "600000",
		"mappedFileSizeTimerLog":       "1048576",
		"maxHashSlotNum":               "5000",
		"maxIndexNum":                  "20000",
		"enableCompaction":             "false",
		"diskMaxUsedSpaceRatio":        "90",
		"fileReservedTime":             "24",
		"sendMessageThreadPoolNums":    "2",
		"endTransactionThreadPoolNums": "4",
		"pullMessageThreadPoolNums":    "8",

		// A consumer that was killed during a heartbeat is removed after this time instead of two minutes. Clients send a
		// heartbeat every 30 s.
		"channelExpiredTimeout": "45000",

		// Longer limits for a slow machine: else requests are refused as busy.
		"waitTimeMillsInSendQueue":        "5000",
		"waitTimeMillsInTransactionQueue": "10000",
		"osPageCacheBusyTimeOutMills":     "5000",

		// Transactions are checked early. The timeout must exceed the interval of the markers by more than a second, else
		// committed messages are checked and so duplicated. The maximum is high because checks are frequent.
		"transactionTimeOut":         "2000",
		"transactionCheckInterval":   "1000",
		"transactionCheckMax":        "60",
		"transactionOpBatchInterval": "100",

		"timerWheelEnable":             "true",
		"timerPrecisionMs":             "100",
		"timerEnableRetryUntilSuccess": "true",
		"timerFlushIntervalMs":         "3000",
		"recallMessageEnable":          "true",
	}
}

// writeProperties writes a Java properties file.
func writeProperties(file string, properties map[string]string) error {
	escape := strings.NewReplacer(`\`, `\\`, "\n", `\n`)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(properties)) {
		fmt.Fprintf(&b, "%s=%s\n", name, escape.Replace(properties[name]))
	}
	return os.WriteFile(file, []byte(b.String()), 0o600) // it may hold secrets
}

// writeJSON writes a file in JSON.
func writeJSON(file string, v any) error { return os.WriteFile(file, []byte(encode(v)), 0o600) }

// joinAddresses returns addresses as RocketMQ's settings have them.
func joinAddresses(addresses []string) string { return strings.Join(addresses, ";") }
