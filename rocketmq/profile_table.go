package rocketmq

import "time"

// What several facts are known from.
var (
	onApache5 = tried("RocketMQ 5.3.3, 5.4.0 and 5.5.0")
	onApache4 = tried("RocketMQ 4.9.7")
	onProxy5  = tried("the proxy of RocketMQ 5.5.0")

	apsaraLimits  = documented("ApsaraMQ for RocketMQ: Quotas and limits, https://www.alibabacloud.com/help/en/apsaramq-for-rocketmq/cloud-message-queue-rocketmq-5-x-series/product-overview/usage-limits")
	apsaraLimits4 = documented("ApsaraMQ for RocketMQ 4.x: Limits, https://www.alibabacloud.com/help/en/apsaramq-for-rocketmq/cloud-message-queue-rocketmq-4-x-series/product-overview/limits")
	apsaraTimers  = documented("ApsaraMQ for RocketMQ: Scheduled and delayed messages, https://www.alibabacloud.com/help/en/apsaramq-for-rocketmq/cloud-message-queue-rocketmq-5-x-series/developer-reference/scheduled-and-delayed-messages")

	huaweiTopics = documented("Huawei Cloud DMS for RocketMQ: Creating a RocketMQ Topic, https://support.huaweicloud.com/eu/usermanual-hrm/hrm-ug-008.html")
	huaweiTimers = documented("Huawei Cloud DMS for RocketMQ: Delivering Scheduled Messages, https://support.huaweicloud.com/intl/en-us/devg-hrm/hrm-devg-021.html")
	huaweiIntro  = documented("Huawei Cloud DMS for RocketMQ: What Is DMS for RocketMQ?, https://support.huaweicloud.com/intl/th-th/productdesc-hrm/hrm-pd-001.html")

	tencentTimers = documented("TDMQ for RocketMQ: Scheduled Message and Delayed Message, https://www.tencentcloud.com/document/product/1113/43108")
	tencentIntro  = documented("TDMQ for RocketMQ: Introduction, https://intl.cloud.tencent.com/document/product/1113/74612")

	byRoutes    = assumed("not documented; brokers are found in the routes of topics in either case")
	bySDK       = assumed("the vendor names clients of version 4 as usable, which don't name the broker; both transports are allowed")
	notOurs     = assumed("topics are created in the vendor's console or by its API; that its servers take the request is not documented")
	groupsFirst = assumed("groups are listed as something to create; a group that exists works in either case")
	oneType     = assumed("not documented for the remoting protocol; a topic of type NORMAL with plain messages works in either case")
	keyType     = assumed("not documented; another property for the sharding key works in either case")
	ends        = assumed("not documented; half messages aren't used, as they are confirmed without being carried out by RocketMQ's own proxy")
	asBroker4   = assumed("brokers of Apache RocketMQ 4.8, to which clients connect directly")
	asPlain     = assumed("not documented; one that is new begins with offsets that the client sets, which any client may")
	bySingles   = assumed("not documented; messages are sent one by one, which works in either case")
)

func tried(text string) Source      { return Source{Tried, text} }
func documented(text string) Source { return Source{Documented, text} }
func assumed(text string) Source    { return Source{Assumed, text} }

func is[T any](value T, source Source) Fact[T] { return Fact[T]{value, source} }

const (
	kib = 1 << 10
	mib = 1 << 20
	day = 24 * time.Hour
)

// groupRule is the source of the length of a group's name at Apache's brokers.
const groupRule = "https://github.com/apache/rocketmq: the topic %RETRY% and the group has at most 127 bytes (org.apache.rocketmq.common.topic.TopicValidator)"

const (
	apacheCharacters = `a-zA-Z0-9_|%-`
	plainCharacters  = `a-zA-Z0-9_-`
)

// facts is what is known of each kind of RocketMQ. docs/clouds.md has the same as tables: run the tests of this package with
// ROCKETFLOW_UPDATE=1 to write them again.
var facts = map[Profile]Facts{
	Apache5: {
		ListsBrokers:       is(true, onApache5),
		NeedsBrokerName:    is(false, onApache5),
		CreatesTopics:      is(true, onApache5),
		CreatesGroups:      is(true, tried("RocketMQ 5.3.3, with its default autoCreateSubscriptionGroup=true")),
		TopicTypes:         is(true, onApache5),
		TypesAreChecked:    is(false, tried("RocketMQ 5.3.3 and 5.5.0: brokers store the type, and only the proxy checks it")),
		ShardingKeyIsAType: is(false, onApache5),
		HalfMessages:       is(true, onApache5),
		ConfirmsEnds:       is(true, onApache5),
		BeginsAtNewest:     is(true, onApache5),
		Batches:            is(true, onApache5),
		MaxBody:            is(0, tried("RocketMQ 5.3.3: the broker's maxMessageSize, 4 MiB by default")),
		MaxSpecialBody:     is(0, tried("RocketMQ 5.3.3: the broker's maxMessageSize, 4 MiB by default")),
		Timers:             is(TimerFormat{timerDeliver, timerDelete}, onApache5),
		Horizon:            is(71*time.Hour, tried("RocketMQ 5.3.3: less than the broker's timerMaxDelaySec, 3 days by default")),
		Precision:          is(time.Second, tried("RocketMQ 5.3.3: the broker's timerPrecisionMs, 1 s by default")),
		TopicNames:         is(NameRule{1, 127, apacheCharacters}, tried("RocketMQ 5.3.3")),
		GroupNames:         is(NameRule{1, 120, apacheCharacters}, documented(groupRule)),
	},
	Apache4: {
		ListsBrokers:       is(true, onApache4),
		NeedsBrokerName:    is(false, onApache4),
		CreatesTopics:      is(true, onApache4),
		CreatesGroups:      is(true, onApache4),
		TopicTypes:         is(false, onApache4),
		TypesAreChecked:    is(false, onApache4),
		ShardingKeyIsAType: is(false, onApache4),
		HalfMessages:       is(true, onApache4),
		ConfirmsEnds:       is(true, onApache4),
		BeginsAtNewest:     is(true, onApache4),
		Batches:            is(true, onApache4),
		MaxBody:            is(0, tried("RocketMQ 4.9.7: the broker's maxMessageSize, 4 MiB by default")),
		MaxSpecialBody:     is(0, tried("RocketMQ 4.9.7: the broker's maxMessageSize, 4 MiB by default")),
		Timers:             is(TimerFormat{}, tried("RocketMQ 4.9.7: it delivers a message with TIMER_DELIVER_MS at once; its delay levels aren't used")),
		Horizon:            is(time.Duration(0), onApache4),
		Precision:          is(time.Duration(0), onApache4),
		TopicNames:         is(NameRule{1, 127, apacheCharacters}, documented("apache/rocketmq 4.9, org.apache.rocketmq.common.topic.TopicValidator")),
		GroupNames:         is(NameRule{1, 120, apacheCharacters}, documented(groupRule)),
	},
	Proxy5: {
		ListsBrokers:       is(false, tried("the proxies of RocketMQ 5.3.3 and 5.5.0")),
		NeedsBrokerName:    is(true, onProxy5),
		CreatesTopics:      is(false, onProxy5),
		CreatesGroups:      is(true, tried("the proxy of RocketMQ 5.5.0, with the brokers' default autoCreateSubscriptionGroup=true")),
		TopicTypes:         is(true, onProxy5),
		TypesAreChecked:    is(true, tried("the proxy of RocketMQ 5.5.0; its enableTopicMessageTypeCheck=false switches it off")),
		ShardingKeyIsAType: is(false, tried("the proxy of RocketMQ 5.5.0: that has __SHARDINGKEY for it")),
		HalfMessages:       is(true, onProxy5),
		ConfirmsEnds:       is(false, tried("the proxy of RocketMQ 5.5.0: https://github.com/apache/rocketmq/issues/8313")),
		BeginsAtNewest:     is(true, onProxy5),
		Batches:            is(true, onProxy5),
		MaxBody:            is(0, documented("the brokers' maxMessageSize, 4 MiB by default")),
		MaxSpecialBody:     is(0, documented("the brokers' maxMessageSize, 4 MiB by default")),
		Timers:             is(TimerFormat{timerDeliver, timerDelete}, onProxy5),
		Horizon:            is(71*time.Hour, documented("less than the brokers' timerMaxDelaySec, 3 days by default")),
		Precision:          is(time.Second, documented("the brokers' timerPrecisionMs, 1 s by default")),
		TopicNames:         is(NameRule{1, 127, apacheCharacters}, documented("the brokers' rule")),
		GroupNames:         is(NameRule{1, 120, apacheCharacters}, documented("the brokers' rule")),
	},
	ApsaraMQ5: {
		ListsBrokers:       is(false, byRoutes),
		NeedsBrokerName:    is(false, bySDK),
		CreatesTopics:      is(false, notOurs),
		CreatesGroups:      is(false, groupsFirst),
		TopicTypes:         is(true, apsaraTimers),
		TypesAreChecked:    is(true, oneType),
		ShardingKeyIsAType: is(true, keyType),
		HalfMessages:       is(true, apsaraLimits4),
		ConfirmsEnds:       is(false, ends),
		BeginsAtNewest:     is(true, asPlain),
		Batches:            is(false, bySingles),
		MaxBody:            is(4*mib, apsaraLimits),
		MaxSpecialBody:     is(64*kib, apsaraLimits4),
		Timers:             is(TimerFormat{startDeliver, ""}, apsaraTimers),
		Horizon:            is(40*day, apsaraTimers),
		Precision:          is(2*time.Second, apsaraTimers),
		TopicNames:         is(NameRule{1, 60, plainCharacters}, apsaraLimits),
		GroupNames:         is(NameRule{1, 60, plainCharacters}, apsaraLimits),
	},
	HuaweiDMS4: {
		ListsBrokers:       is(false, byRoutes),
		NeedsBrokerName:    is(false, asBroker4),
		CreatesTopics:      is(false, huaweiTopics),
		CreatesGroups:      is(false, groupsFirst),
		TopicTypes:         is(false, huaweiTopics),
		TypesAreChecked:    is(false, huaweiTopics),
		ShardingKeyIsAType: is(false, huaweiTopics),
		HalfMessages:       is(true, huaweiIntro),
		ConfirmsEnds:       is(true, asBroker4),
		BeginsAtNewest:     is(false, assumed("RocketMQ 4 shows whether a group is new by the offsets of all groups only, which a cloud may not list")),
		Batches:            is(true, asBroker4),
		MaxBody:            is(4*mib, assumed("Apache's default; the page of its limits could not be read")),
		MaxSpecialBody:     is(4*mib, assumed("Apache's default; the page of its limits could not be read")),
		Timers:             is(TimerFormat{startDeliver, cancelTimer}, huaweiTimers),
		Horizon:            is(364*day, huaweiTimers), // it says: one year
		Precision:          is(100*time.Millisecond, huaweiTimers),
		TopicNames:         is(NameRule{3, 64, apacheCharacters}, huaweiTopics),
		GroupNames:         is(NameRule{3, 64, apacheCharacters}, assumed("as that of topics")),
	},
	HuaweiDMS5: {
		ListsBrokers:       is(false, byRoutes),
		NeedsBrokerName:    is(false, bySDK),
		CreatesTopics:      is(false, huaweiTopics),
		CreatesGroups:      is(false, groupsFirst),
		TopicTypes:         is(true, huaweiTopics),
		TypesAreChecked:    is(true, assumed("its page \"Creating a RocketMQ Topic\" requires equal types of clients that use gRPC; plain messages work in either case")),
		ShardingKeyIsAType: is(true, keyType),
		HalfMessages:       is(true, huaweiIntro),
		ConfirmsEnds:       is(false, ends),
		BeginsAtNewest:     is(true, asPlain),
		Batches:            is(false, bySingles),
		MaxBody:            is(4*mib, assumed("Apache's default; the page of its limits could not be read")),
		MaxSpecialBody:     is(4*mib, assumed("Apache's default; the page of its limits could not be read")),
		Timers:             is(TimerFormat{startDeliver, cancelTimer}, huaweiTimers),
		Horizon:            is(7*day, assumed("documents of the vendor name 7 days and one year; the shorter one is taken")),
		Precision:          is(100*time.Millisecond, huaweiTimers),
		TopicNames:         is(NameRule{3, 64, apacheCharacters}, huaweiTopics),
		GroupNames:         is(NameRule{3, 64, apacheCharacters}, assumed("as that of topics")),
	},
	TencentTDMQ: {
		ListsBrokers:       is(false, byRoutes),
		NeedsBrokerName:    is(false, bySDK),
		CreatesTopics:      is(false, notOurs),
		CreatesGroups:      is(false, groupsFirst),
		TopicTypes:         is(true, tencentIntro),
		TypesAreChecked:    is(true, oneType),
		ShardingKeyIsAType: is(true, keyType),
		HalfMessages:       is(true, tencentIntro),
		ConfirmsEnds:       is(false, ends),
		BeginsAtNewest:     is(true, asPlain),
		Batches:            is(false, bySingles),
		MaxBody:            is(4*mib, assumed("Apache's default; the page of its limits could not be read")),
		MaxSpecialBody:     is(4*mib, assumed("Apache's default; the page of its limits could not be read")),
		Timers:             is(TimerFormat{startDeliver, ""}, tencentTimers),
		Horizon:            is(7*day, assumed("documents of the vendor name 40 days, and 7 days for some editions; the shorter one is taken")),
		Precision:          is(time.Second, assumed("not documented")),
		TopicNames:         is(NameRule{1, 127, apacheCharacters}, assumed("Apache's; the page of its limits could not be read")),
		GroupNames:         is(NameRule{1, 120, apacheCharacters}, assumed("Apache's; the page of its limits could not be read")),
	},
}
