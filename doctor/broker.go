package doctor

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

var brokerChecks = []check{
	{
		Check: Check{Code: "broker-name-servers", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "All name servers answer and list the same brokers",
			About: `A client goes on with one name server of several. But one that is away is no help when the next fails, and two that list different brokers give different routes: a producer then sends a stream's events to other queues than before, and a consumer doesn't read some queues at all.

Mend: start the name server, or let all brokers register at all of them (namesrvAddr in broker.conf).`},
		cluster: brokerNameServers,
	},
	{
		Check: Check{Code: "broker-master", Group: RocketMQ, Severity: Critical, Pre: true,
			Title: "Each broker has a master that may be read and written",
			About: `Half messages, their ends and check-backs need the master. While there is none, events of its queues are owed, and its timers stand still. brokerPermission without writing is how a broker is drained; forgotten, it stays so.

Mend: start the master, or switch to a slave (mqadmin electMaster in controller mode); give back the permission.`},
		cluster: brokerMaster,
	},
	{
		Check: Check{Code: "broker-version", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker's version has no known fault that matters here",
			About: `Known faults of versions, as they were seen with rocketflow's tests:

- 5.3.3 to 5.4.0 with replicas: a topic made with attributes, such as its type, is lost when a slave becomes master.
- 5.5.0 and 5.5.1: the broker uses a whole core from one transaction to the next; with replicas, slaves can't copy the offsets of consumers, so that a group reads everything again after a switch.

Mend: use a version without the fault, or do without what it needs.`},
		cluster: brokerVersion,
	},
	{
		Check: Check{Code: "broker-check-window", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker waits for a decision on half messages for longer than the longest transaction",
			About: `A broker checks a half message back transactionCheckMax times, once in transactionCheckInterval, from transactionTimeOut on. Then it discards the half message, whatever its transaction does. The event isn't lost: its row is sent by the sweep once the transaction has committed. But it comes late, and out of the order of its neighbours until the consumers have waited for it.

The longest transaction is outbox.Config.MaxTransaction, or the oldest transaction that is open now if that is longer.

Mend: raise transactionCheckMax, or make transactions shorter.`},
		cluster: brokerCheckWindow,
	},
	{
		Check: Check{Code: "broker-check-early", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker doesn't check half messages back that are committed already",
			About: `A broker notices that a half message is committed only when it has written and read the marker of that, which takes up to transactionOpBatchInterval and a second. If transactionTimeOut is over before, it checks the message all the same. The answer delivers it a second time, unless the event is acknowledged by then. Consumers absorb the duplicate, but it costs the broker and Postgres twice the work.

Mend: raise transactionTimeOut, or lower transactionOpBatchInterval.`},
		cluster: brokerCheckEarly,
	},
	{
		Check: Check{Code: "broker-transactions", Group: RocketMQ, Severity: Critical, Pre: true,
			Title: "The broker takes half messages",
			About: `With rejectTransactionMessage the broker refuses half messages. All events then take the relay path: they come later, and the broker refuses each first.

Mend: switch it off, or set outbox.Config.Path to Relay.`},
		cluster: brokerTransactions,
	},
	{
		Check: Check{Code: "broker-retention-short", Group: RocketMQ, Severity: Critical, Pre: true,
			Title: "The broker keeps messages for longer than a consumer may be stopped",
			About: `A broker deletes messages after fileReservedTime, read or not. A consumer that was stopped for longer requests the missing events of each stream from the publisher's outbox when a later event of the stream comes. The last event of a stream, and events without order, it misses without notice.

How long a consumer may be stopped is --max-away, a day by default.

Mend: raise fileReservedTime, and mind the disk.`},
		cluster: brokerRetentionShort,
	},
	{
		Check: Check{Code: "broker-disk", Group: RocketMQ, Severity: Critical, Pre: true,
			Title: "The broker's disk has room",
			About: `From diskMaxUsedSpaceRatio on a broker deletes messages before their time is over, unread ones too; from 90 % on it refuses to store.

Mend: enlarge the disk, or shorten fileReservedTime.`},
		cluster: brokerDisk,
	},
	{
		Check: Check{Code: "broker-durability", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "What a broker has acknowledged survives the loss of its machine's power or disk",
			About: `With asynchronous flush a broker acknowledges a message up to half a second before it is on the disk; without a synchronous replica it is on one disk alone. After a power failure, or the loss of the disk, events are missing that the outbox has as acknowledged. Consumers request those that a later event of the stream shows to be missing. The last event of a stream, and events without order, have to be found by reconciliation or sent again by rocketflow resend.

Mend: flush synchronously, or replicate synchronously: either is enough for a power failure, only the replica for the loss of a disk. Both cost time in each send.`},
		cluster: brokerDurability,
	},
	{
		Check: Check{Code: "broker-message-size", Group: RocketMQ, Severity: Critical, Pre: true,
			Title: "The broker takes messages as large as the outbox records",
			About: `An event whose body is larger than the broker's maxMessageSize is recorded and then rejected: it is owed until an operator discards it, and its stream waits.

Mend: raise maxMessageSize, or lower outbox.Config.MaxBody.`},
		cluster: brokerMessageSize,
	},
	{
		Check: Check{Code: "broker-timer-horizon", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker's timers reach as far as timers are set",
			About: `A timer that is further ahead than timerMaxDelaySec is refused, and with timerWheelEnable off each one is. The timeout then stays in Postgres until it is near enough, or fires from there; each hand-over is tried in vain. A timeout that was handed over and is further ahead than the broker's timers reach now may be lost by it: the sweep sends its event when it is overdue.

How far timers are set is rocketmq.Config.TimerHorizon (--timer-horizon), 71 h by default. RocketMQ 4 has no timers, which is no finding: timeouts fire from Postgres.

Mend: raise timerMaxDelaySec, or lower the horizon.`},
		cluster: brokerTimerHorizon,
	},
	{
		Check: Check{Code: "broker-timer-retention", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker keeps the messages of timers until they fire",
			About: `The body of a timer's message is in the broker's log and is written again every timerRollWindowSlot × timerPrecisionMs, two days by default. If fileReservedTime is shorter than that, and than the horizon, the log's file is deleted before the timer fires, and the timer is lost. The sweep sends the event when the timeout is overdue, some seconds late.

Mend: raise fileReservedTime, or lower rocketmq.Config.TimerHorizon.`},
		cluster: brokerTimerRetention,
	},
	{
		Check: Check{Code: "broker-auto-create", Group: RocketMQ, Severity: Warning, Pre: true,
			Title: "The broker doesn't make topics by itself",
			About: `With autoCreateTopicEnable a misspelt topic is made when the first event is sent to it: events go where nobody reads them, and nothing reports it. A topic that is made so also begins on one broker of several, so that the queues of streams change.

Mend: switch it off, and create topics with mqadmin updateTopic or rocketflow's CreateTopics.`},
		cluster: brokerAutoCreate,
	},
	{
		Check: Check{Code: "broker-topics", Group: RocketMQ, Severity: Critical,
			Title: "All topics exist, with the same queues on all brokers",
			About: `The topics are those that the schema has published to, those that its consumers read, those of its timeouts, and rocketflow-missing-events, by which consumers request missing events. Events to a topic that is missing are owed. If the numbers of a topic's queues differ between brokers, or from reading to writing, or a broker lacks the topic, load is uneven, some queues are never read, or a stream's events change their queue while a broker is away.

Mend: create or change the topic on the whole cluster.`},
		schema: withRoutes(brokerTopics),
	},
	{
		Check: Check{Code: "broker-permission", Group: RocketMQ, Severity: Critical,
			Title: "The service may publish to its topics",
			About: `Runs with --probe only. Sends a half message to each topic that the schema has published to, and rolls it back: it proves the right to publish, and no consumer sees it.

Mend: grant Pub on the topic to the user.`},
		probe: true, schema: withCluster(brokerPermission),
	},
	{
		Check: Check{Code: "broker-half-messages", Group: RocketMQ, Severity: Warning,
			Title: "No half message is left without a decision",
			About: `A half message that is older than outbox.Config.MaxTransaction and was checked back had no answer: no process of its producer group is connected, or its database can't be read. The sweep sends the event all the same. While a half message is open, the broker judges committed ones by their age alone, so that duplicates grow.

Mend: start a process of the service whose group is named; its log says what its check-backs lack.`},
		cluster: brokerHalfMessages,
	},
	{
		Check: Check{Code: "broker-discarded", Group: RocketMQ, Severity: Warning,
			Title: "The broker has discarded no half messages",
			About: `TRANS_CHECK_MAX_TIME_TOPIC has the half messages that the broker gave up after transactionCheckMax check-backs without a decision. Their events aren't lost: what committed was sent by the sweep. It shows that nobody answered check-backs for minutes. The messages stay in the topic until fileReservedTime is over.

Mend: see broker-half-messages and outbox-producer for the cause.`},
		cluster: brokerDiscarded,
	},
	{
		Check: Check{Code: "broker-dead-letters", Group: RocketMQ, Severity: Warning,
			Title: "No message is in a dead-letter topic of the broker",
			About: `rocketflow never sends a message back: what can't be handled is parked in Postgres. A message in %DLQ%… of a consumer's group was put there by another client of the group, or by a tool.

Mend: find out which client uses the group: see consumer-group-shared.`},
		schema: withCluster(brokerDeadLetters),
	},
}

func brokerNameServers(_ context.Context, m *cluster) (results []Result) {
	names := map[string][]string{}
	for _, s := range m.servers {
		if s.err != nil {
			results = append(results, unknown("%s", reason(s.err)).about("name server "+s.address))
			continue
		}
		list := sorted(slices.Collect(maps.Keys(s.cluster.Brokers)), ", ")
		names[list] = append(names[list], s.address)
	}
	if len(names) < 2 {
		for list, servers := range names {
			results = append(results, ok("%s: brokers %s", quantity(int64(len(servers)), "name server"), list))
		}
		return results
	}
	var seen []string
	for list, servers := range names {
		seen = append(seen, fmt.Sprintf("%s: %s", strings.Join(servers, ", "), list))
	}
	return append(results, found("name servers list different brokers: "+sorted(seen, "; "), "the same brokers",
		"# in broker.conf of each broker:\nnamesrvAddr="+strings.Join(m.NameServers, ";")))
}

func brokerMaster(_ context.Context, m *cluster) (results []Result) {
	for _, b := range m.brokers {
		subject := m.subject(b)
		switch {
		case b.address == "":
			results = append(results, found("the broker has no master", "a master", "mqadmin electMaster -a <controller> -n "+shell(b.name)+" # or start the master").about(subject))
		case b.err != nil:
			results = append(results, unknown("%s", reason(b.err)).about(subject))
		case b.settingsErr != nil:
			results = append(results, unknown("the broker's settings can't be read: %s", reason(b.settingsErr)).about(subject))
		case b.settings["brokerPermission"] == "":
			results = append(results, unknown("the broker has no setting brokerPermission").about(subject))
		case b.settings["brokerPermission"] != "6":
			results = append(results, found("brokerPermission is "+b.settings["brokerPermission"], "6: reading and writing", b.change("brokerPermission", "6")).about(subject))
		default:
			results = append(results, ok("the master is at %s, with %s", b.address, quantity(int64(b.slaves), "slave")).about(subject))
		}
	}
	return results
}

func brokerVersion(_ context.Context, m *cluster) []Result {
	return m.each(func(b *master) (results []Result) {
		name := versionName(b)
		replicated := b.slaves > 0 || b.settings["enableControllerMode"] == "true"
		fault := func(what, mend string) {
			results = append(results, found(name+": "+what, "a version without this fault", mend))
		}
		if b.version >= remoting.Version533 && b.version < remoting.FirstOf550 && replicated {
			fault("topics with attributes are lost when a slave becomes master", "# use 5.5.2 or newer once it is released, or create topics without attributes:\nmqadmin updateTopic -c <cluster> -t <topic> # without -a")
		}
		if b.version >= remoting.FirstOf550 && b.version <= remoting.Version551 {
			fault("uses a whole core between transactions (apache/rocketmq#10966)", "# use 5.3.3 without replicas, or a version with the correction")
			if replicated {
				fault("slaves can't copy the offsets of consumers: groups read everything again after a switch", "# use a version with the correction")
			}
		}
		if len(results) == 0 {
			return one(ok("%s", name))
		}
		return results
	})
}

func versionName(b *master) string {
	if name := b.state["brokerVersionDesc"]; name != "" {
		return "RocketMQ " + strings.ReplaceAll(strings.TrimPrefix(name, "V"), "_", ".")
	}
	return "RocketMQ with version number " + strconv.Itoa(b.version)
}

func brokerCheckWindow(_ context.Context, m *cluster) []Result {
	longest, what := m.x.config.Expect.MaxTransaction, "outbox.Config.MaxTransaction"
	for _, d := range m.x.databases {
		if d.oldest() > longest {
			longest, what = d.oldest(), "the oldest open transaction of "+d.name
		}
	}
	return m.eachSettings(func(b *master, s *settings) []Result {
		timeout, interval := s.duration("transactionTimeOut", time.Millisecond), s.duration("transactionCheckInterval", time.Millisecond)
		checks := s.number("transactionCheckMax")
		window := max(timeout, interval) + time.Duration(checks-1)*interval
		observed := fmt.Sprintf("half messages are discarded after %s (%d checks, one in %s)", about(window), checks, about(interval))
		if window > longest {
			return one(ok("%s", observed))
		}
		wanted := int64(longest/max(interval, 1)) + 2
		return one(found(observed, fmt.Sprintf("more than %s: %s", about(longest), what), b.change("transactionCheckMax", strconv.FormatInt(wanted, 10))))
	})
}

func brokerCheckEarly(_ context.Context, m *cluster) []Result {
	const round = time.Second // that a round of checks sleeps before it reads the last markers
	return m.eachSettings(func(b *master, s *settings) []Result {
		timeout, markers := s.duration("transactionTimeOut", time.Millisecond), s.duration("transactionOpBatchInterval", time.Millisecond)
		if b.version < remoting.FirstOf500 {
			markers, s.missing = 0, "" // RocketMQ 4 writes markers at once
		}
		needed := round + markers + m.x.config.Expect.HalfTimeout
		observed := fmt.Sprintf("transactionTimeOut is %s", about(timeout))
		if timeout >= needed {
			return one(ok("%s", observed))
		}
		return one(found(observed, fmt.Sprintf("at least %s: transactionOpBatchInterval %s + %s + the time of a commit %s", about(needed), about(markers), about(round), about(m.x.config.Expect.HalfTimeout)),
			b.change("transactionTimeOut", strconv.FormatInt(needed.Milliseconds(), 10))))
	})
}

func brokerTransactions(_ context.Context, m *cluster) []Result {
	return m.eachSettings(func(b *master, s *settings) []Result {
		if s.text("rejectTransactionMessage") == "true" {
			return one(found("rejectTransactionMessage is true: half messages are refused", "false", b.change("rejectTransactionMessage", "false")))
		}
		return one(ok("half messages are taken"))
	})
}

func brokerRetentionShort(_ context.Context, m *cluster) []Result {
	away := m.x.config.Expect.MaxAway
	return m.eachSettings(func(b *master, s *settings) []Result {
		kept := s.duration("fileReservedTime", time.Hour)
		observed := "messages are kept for " + about(kept)
		if kept >= away {
			return one(ok("%s", observed))
		}
		return one(found(observed, fmt.Sprintf("at least %s, for which a consumer may be stopped", about(away)), b.change("fileReservedTime", hours(away))))
	})
}

// hours returns a duration in whole hours, rounded up.
func hours(d time.Duration) string {
	return strconv.FormatInt(int64((d+time.Hour-1)/time.Hour), 10)
}

func brokerDisk(_ context.Context, m *cluster) []Result {
	return m.eachSettings(func(b *master, s *settings) []Result {
		most := s.number("diskMaxUsedSpaceRatio")
		if b.stateErr != nil {
			return one(unknown("the broker's state can't be read: %s", reason(b.stateErr)))
		}
		used, err := strconv.ParseFloat(b.state["commitLogDiskRatio"], 64)
		if err != nil {
			return one(unknown("the broker doesn't say how full its disk is"))
		}
		observed := fmt.Sprintf("%.0f %% of the disk are used", used*100)
		if used*100 < float64(most) {
			return one(ok("%s", observed))
		}
		return one(found(observed, fmt.Sprintf("less than %d %%: from there on messages are deleted before their time", most), "# enlarge the disk, or keep messages for a shorter time:\n"+b.change("fileReservedTime", strconv.FormatInt(max(s.number("fileReservedTime")/2, 1), 10))))
	})
}

func brokerDurability(_ context.Context, m *cluster) []Result {
	return m.eachSettings(func(b *master, s *settings) []Result {
		flush, role, needed := s.text("flushDiskType"), s.text("brokerRole"), s.number("inSyncReplicas")
		observed := fmt.Sprintf("%s, %s, %s", flush, role, quantity(int64(b.slaves), "slave"))
		replicated := b.slaves > 0 && (role == "SYNC_MASTER" || needed > 1)
		if b.version < remoting.FirstOf500 {
			s.missing = ""
		}
		if flush == "SYNC_FLUSH" || replicated {
			return one(ok("%s", observed))
		}
		return one(found(observed, "SYNC_FLUSH, or SYNC_MASTER with a slave", "# in broker.conf, and restart the broker:\nflushDiskType=SYNC_FLUSH\n# or, with a slave:\nbrokerRole=SYNC_MASTER"))
	})
}

func brokerMessageSize(_ context.Context, m *cluster) []Result {
	const head = 32 << 10 // the largest properties
	most := int64(m.x.config.Expect.MaxBody)
	return m.eachSettings(func(b *master, s *settings) []Result {
		size := s.number("maxMessageSize")
		observed := fmt.Sprintf("maxMessageSize is %d bytes", size)
		if size >= most {
			return one(ok("%s", observed))
		}
		return one(found(observed, fmt.Sprintf("at least %d: outbox.Config.MaxBody", most), b.change("maxMessageSize", strconv.FormatInt(most+head, 10))))
	})
}

func brokerTimerHorizon(_ context.Context, m *cluster) (results []Result) {
	horizon, what := m.x.config.Expect.TimerHorizon, "rocketmq.Config.TimerHorizon"
	for _, s := range m.x.schemas() {
		if s.farthestErr != nil {
			results = append(results, unknown("the farthest timeout can't be read: %s", reason(s.farthestErr)).about(s.subject()))
		}
		if s.farthest > horizon {
			horizon, what = s.farthest, "a timeout that was handed over, of "+s.subject()
		}
	}
	return append(results, m.each(func(b *master) []Result {
		if b.version < remoting.FirstOf500 {
			return one(ok("%s has no timers: timeouts fire from Postgres", versionName(b)))
		}
		if b.settingsErr != nil {
			return one(unknown("the broker's settings can't be read: %s", reason(b.settingsErr)))
		}
		s := &settings{of: b.settings}
		on, reach := s.text("timerWheelEnable"), s.duration("timerMaxDelaySec", time.Second)
		switch {
		case s.missing != "":
			return one(unknown("the broker has no setting %s", s.missing))
		case on != "true":
			return one(found("timerWheelEnable is "+on+": timers are refused", "true", "# in broker.conf, and restart the broker:\ntimerWheelEnable=true"))
		case reach <= horizon:
			return one(found("timers reach "+about(reach)+" ahead", fmt.Sprintf("more than %s: %s", about(horizon), what),
				b.change("timerMaxDelaySec", strconv.FormatInt(int64((horizon+time.Hour)/time.Second), 10))))
		}
		return one(ok("timers reach %s ahead", about(reach)))
	})...)
}

func brokerTimerRetention(_ context.Context, m *cluster) []Result {
	return m.each(func(b *master) []Result {
		if b.version < remoting.FirstOf500 {
			return one(ok("%s has no timers", versionName(b)))
		}
		if b.settingsErr != nil {
			return one(unknown("the broker's settings can't be read: %s", reason(b.settingsErr)))
		}
		s := &settings{of: b.settings}
		kept, rolled := s.duration("fileReservedTime", time.Hour), time.Duration(s.number("timerRollWindowSlot"))*s.duration("timerPrecisionMs", time.Millisecond)
		if s.missing != "" {
			return one(unknown("the broker has no setting %s", s.missing))
		}
		needed := min(rolled, m.x.config.Expect.TimerHorizon)
		observed := fmt.Sprintf("messages are kept for %s, those of timers are written again every %s", about(kept), about(rolled))
		if kept >= needed {
			return one(ok("%s", observed))
		}
		return one(found(observed, "kept for at least "+about(needed), b.change("fileReservedTime", hours(needed))))
	})
}

func brokerAutoCreate(_ context.Context, m *cluster) []Result {
	return m.eachSettings(func(b *master, s *settings) []Result {
		if s.text("autoCreateTopicEnable") == "true" {
			return one(found("autoCreateTopicEnable is true", "false", "# in broker.conf, and restart the broker:\nautoCreateTopicEnable=false"))
		}
		return one(ok("topics are made by request only"))
	})
}
