package broker

import "strings"

// reserved are the property names that RocketMQ gives a meaning: those of org.apache.rocketmq.common.message.MessageConst at 5.3.3 and
// 5.5.0, and those of cloud providers. A user's property of such a name would be overwritten, or would turn an ordinary message into a
// half message, a timer or a reply.
var reserved = func() map[string]bool {
	names := map[string]bool{}
	for name := range strings.FieldsSeq(`
		KEYS TAGS WAIT DELAY RETRY_TOPIC REAL_TOPIC REAL_QID TRAN_MSG PGROUP MIN_OFFSET MAX_OFFSET BUYER_ID
		ORIGIN_MESSAGE_ID TRANSFER_FLAG CORRECTION_FLAG MQ2_FLAG RECONSUME_TIME MSG_REGION TRACE_ON UNIQ_KEY
		EXTEND_UNIQ_INFO MAX_RECONSUME_TIMES CONSUME_START_TIME INNER_NUM INNER_BASE DUP_INFO
		TRAN_PREPARED_QUEUE_OFFSET TRANSACTION_CHECK_TIMES CHECK_IMMUNITY_TIME_IN_SECONDS INSTANCE_ID
		CORRELATION_ID REPLY_TO_CLIENT MSG_TYPE TTL ARRIVE_TIME PUSH_REPLY_TIME CLUSTER TRACE_CONTEXT
		SHARDING_KEY POP_CK POP_CK_OFFSET 1ST_POP_TIME TIMER_DELIVER_MS TIMER_DELAY_SEC TIMER_DELAY_MS
		TIMER_DELAY_LEVEL TIMER_ENQUEUE_MS TIMER_DEQUEUE_MS TIMER_ROLL_TIMES TIMER_OUT_MS TIMER_DEL_UNIQKEY
		TIMER_ROLL_LABEL INNER_MULTI_DISPATCH INNER_MULTI_QUEUE_OFFSET DLQ_ORIGIN_TOPIC DLQ_ORIGIN_MESSAGE_ID
		LMQ_TAG BIZ_ID DELAY_TIME id UNIQUE_MSG_QUERY_FLAG CRC32 __CRC32# __transactionId__ __STARTDELIVERTIME
		__SHARDINGKEY rf_sharding_key __CANCEL_SCHEDULED_MSG _SYS_MSG_PRIORITY_ __LITE_TOPIC HA_PROXY NON_PERSISTENT`) {
		names[name] = true
	}
	return names
}()

// ShardingKeyProperty is the property in which drivers send a sharding key to brokers that would take SHARDING_KEY for the sign of another
// type of message. Users can't set it.
const ShardingKeyProperty = "rf_sharding_key"

// Reserved reports whether the broker reserves a property name, so that it can't be a name in Message.Properties.
func Reserved(name string) bool { return reserved[name] }
