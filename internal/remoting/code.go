package remoting

// Code is the kind of a request or, in a response, the result.
type Code int

// Codes of the requests that packages rocketmq and rocketmqtest send or handle.
const (
	SendMessage           Code = 10
	PullMessage           Code = 11
	QueryMessage          Code = 12
	QueryConsumerOffset   Code = 14
	UpdateConsumerOffset  Code = 15
	UpdateTopic           Code = 17
	UpdateBrokerConfig    Code = 25
	BrokerConfig          Code = 26
	BrokerRuntime         Code = 28
	SearchOffset          Code = 29
	MaxOffset             Code = 30
	MinOffset             Code = 31
	MessageByID           Code = 33
	Heartbeat             Code = 34
	UnregisterClient      Code = 35
	SendMessageBack       Code = 36
	EndTransaction        Code = 37
	ConsumerList          Code = 38
	CheckTransactionState Code = 39
	ConsumersChanged      Code = 40
	LockQueues            Code = 41
	UnlockQueues          Code = 42
	AllConsumerOffsets    Code = 43
	RouteOfTopic          Code = 105
	ClusterInfo           Code = 106
	AllGroups             Code = 201
	ConsumerConnections   Code = 203
	ProducerConnections   Code = 204
	AllTopics             Code = 206
	DeleteTopicInBroker   Code = 215
	DeleteTopicInNames    Code = 216
	ResetOffset           Code = 220
	ConsumerStatus        Code = 221
	ResetGroup            Code = 222
	GroupsOfTopic         Code = 300
	RunningInfo           Code = 307
	ConsumeDirectly       Code = 309
	SendMessageV2         Code = 310
	SendBatchMessage      Code = 320
	ResumeCheck           Code = 323
	RecallMessage         Code = 370
	SyncStates            Code = 1006
	CreateUser            Code = 3001
	CreateACL             Code = 3006
)

// Codes of responses.
const (
	Success             Code = 0
	SystemError         Code = 1
	SystemBusy          Code = 2
	NotSupported        Code = 3
	FlushDiskTimeout    Code = 10
	SlaveNotAvailable   Code = 11
	FlushSlaveTimeout   Code = 12
	MessageIllegal      Code = 13
	ServiceNotAvailable Code = 14
	VersionNotSupported Code = 15
	NoPermission        Code = 16
	TopicNotExist       Code = 17
	PullNotFound        Code = 19
	PullRetryNow        Code = 20
	PullOffsetMoved     Code = 21
	QueryNotFound       Code = 22
	SubscriptionIllegal Code = 23
	SubscriptionUnknown Code = 24
	SubscriptionOld     Code = 25
	GroupUnknown        Code = 26
	ConsumerNotOnline   Code = 206
	InvalidParameter    Code = 29
	IllegalOperation    Code = 604
)

// Decisions of END_TRANSACTION; also the bits of a record's system flag that say what it is of a transaction.
const (
	TransactionUnknown  = 0
	TransactionPrepared = 4
	TransactionCommit   = 8
	TransactionRollback = 12
)
