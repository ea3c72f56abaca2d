package remoting

// Names of topics and groups that belong to the brokers. Namespaces don't change them.
const (
	// DefaultTopic is the topic of whose settings brokers make a missing topic, if they create topics by themselves.
	DefaultTopic = "TBW102"
	// HalfTopic has the half messages.
	HalfTopic = "RMQ_SYS_TRANS_HALF_TOPIC"
	// DiscardTopic has the half messages that a broker has checked as often as it is set to, without a decision. It doesn't exist
	// before the first of them.
	DiscardTopic = "TRANS_CHECK_MAX_TIME_TOPIC"
	// ToolsGroup is a consumer group that every broker has, for tools.
	ToolsGroup = "TOOLS_CONSUMER"
	// CheckGroup is the consumer group with which a broker reads half messages, for their check-backs.
	CheckGroup = "CID_RMQ_SYS_TRANS"
	// RetryPrefix and DeadPrefix begin the names of a group's topics of retries and of dead letters.
	RetryPrefix = "%RETRY%"
	DeadPrefix  = "%DLQ%"
)
