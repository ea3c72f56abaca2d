package rocketmqtest

// Properties by which the broker steers a message. Where they come from is told in the facts of package broker's list of
// reserved names.
const (
	propertyKeys          = "KEYS"
	propertyTag           = "TAGS"
	propertyUniqueKey     = "UNIQ_KEY"
	propertyDelayLevel    = "DELAY"
	propertyRealTopic     = "REAL_TOPIC"
	propertyRealQueue     = "REAL_QID"
	propertyTransaction   = "TRAN_MSG"
	propertyProducerGroup = "PGROUP"
	propertyTransactionID = "__transactionId__"
	propertyCheckTimes    = "TRANSACTION_CHECK_TIMES"
	propertyRetryTopic    = "RETRY_TOPIC"
	propertyOriginID      = "ORIGIN_MESSAGE_ID"
)
