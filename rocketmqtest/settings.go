package rocketmqtest

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// defaultSettings are those settings of a real broker that have no field in Config. Changing them has no effect here but that
// brokerConfig responds with the new value.
var defaultSettings = map[string]string{
	"autoCreateSubscriptionGroup": "true",
	"brokerId":                    "0",
	"brokerPermission":            "6",
	"brokerRole":                  "ASYNC_MASTER",
	"diskMaxUsedSpaceRatio":       "75",
	"enableControllerMode":        "false",
	"fileReservedTime":            "72",
	"flushDiskType":               "ASYNC_FLUSH",
	"inSyncReplicas":              "1",
	"rejectTransactionMessage":    "false",

	"timerEnableRetryUntilSuccess": "false",
	"timerRollWindowSlot":          "172800",
}

// settings returns the broker's settings by RocketMQ's names.
func (s *Server) settings() map[string]string {
	all := maps.Clone(defaultSettings)
	if s.is4() {
		maps.DeleteFunc(all, func(name, _ string) bool {
			return strings.HasPrefix(name, "timer") || name == "enableControllerMode" || name == "inSyncReplicas"
		})
	}
	maps.Copy(all, s.changedSettings)
	ms := func(d time.Duration) string { return strconv.FormatInt(d.Milliseconds(), 10) }
	maps.Copy(all, map[string]string{
		"brokerName":                 s.config.Name,
		"brokerClusterName":          clusterName,
		"autoCreateTopicEnable":      strconv.FormatBool(s.config.AutoCreateTopics),
		"maxMessageSize":             strconv.Itoa(s.config.MaxMessageSize),
		"transactionTimeOut":         ms(s.config.TransactionTimeout),
		"transactionCheckInterval":   ms(s.config.CheckInterval),
		"transactionCheckMax":        strconv.Itoa(s.config.CheckMax),
		"transactionOpBatchInterval": ms(s.config.OpBatchInterval),
	})
	if !s.is4() {
		maps.Copy(all, map[string]string{
			"timerWheelEnable": strconv.FormatBool(!s.config.NoTimers),
			"timerMaxDelaySec": strconv.FormatInt(int64(s.config.TimerMaxDelay/time.Second), 10),
			"timerPrecisionMs": ms(s.config.TimerPrecision),
		})
	}
	return all
}

// brokerConfig responds with the broker's settings, a line for each (26).
func (s *Server) brokerConfig(r *request) *remoting.Command {
	all := s.settings()
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(all)) {
		fmt.Fprintf(&b, "%s=%s\n", name, all[name])
	}
	a := r.respond("version", `{"counter":0,"stateVersion":0,"timestamp":0}`)
	a.Body = []byte(b.String())
	return a
}

// updateBrokerConfig changes settings while the broker runs (25). As in a real broker, unknown names and values that can't be
// read are ignored.
func (s *Server) updateBrokerConfig(r *request) *remoting.Command {
	known := s.settings()
	for line := range strings.Lines(string(r.Body)) {
		name, value, _ := strings.Cut(strings.TrimSpace(line), "=")
		if _, ok := known[name]; ok {
			s.changeSetting(name, value)
		}
	}
	return r.respond()
}

func (s *Server) changeSetting(name, value string) {
	durations := map[string]struct {
		field *time.Duration
		unit  time.Duration
	}{
		"transactionTimeOut": {&s.config.TransactionTimeout, time.Millisecond}, "transactionCheckInterval": {&s.config.CheckInterval, time.Millisecond},
		"transactionOpBatchInterval": {&s.config.OpBatchInterval, time.Millisecond}, "timerMaxDelaySec": {&s.config.TimerMaxDelay, time.Second},
	}
	numbers := map[string]*int{"transactionCheckMax": &s.config.CheckMax, "maxMessageSize": &s.config.MaxMessageSize}
	n, err := strconv.ParseInt(value, 10, 32)
	d, isDuration := durations[name]
	number, isNumber := numbers[name]
	switch {
	case isDuration && err == nil && n > 0:
		*d.field = time.Duration(n) * d.unit
	case isNumber && err == nil && n > 0:
		*number = int(n)
	case name == "timerWheelEnable" && !s.config.DMS:
		s.config.NoTimers = value != "true"
	case isDuration, isNumber:
	default:
		s.changedSettings[name] = value
	}
}

// brokerRuntime responds with some of the numbers that a real broker has about itself (28).
func (s *Server) brokerRuntime(r *request) *remoting.Command {
	began := s.halves.began
	ran := int64(s.clock.Now().Sub(began) / time.Second)
	table := map[string]string{
		"bootTimestamp":      strconv.FormatInt(began.UnixMilli(), 10),
		"runtime":            fmt.Sprintf("[ %d days, %d hours, %d minutes, %d seconds ]", ran/86400, ran/3600%24, ran/60%60, ran%60),
		"brokerVersionDesc":  s.config.Version.description(),
		"commitLogDiskRatio": "0.0",
	}
	if !s.is4() {
		table["timerReadBehind"] = "0"
	}
	if s.config.Version != RocketMQ55 {
		table["brokerVersion"] = strconv.Itoa(s.config.Version.ordinal())
	}
	return r.respondJSON(map[string]any{"table": table})
}
