package remoting

import (
	"encoding/json"
	"fmt"
	"slices"
	"strconv"
)

// Permissions of a topic's queues, as bits of QueueData.Perm.
const (
	PermWrite = 1 << 1
	PermRead  = 1 << 2
)

// Route lists the queues of a topic and the brokers that hold them.
type Route struct {
	Queues  []QueueData  `json:"queueDatas"`
	Brokers []BrokerData `json:"brokerDatas"`
}

// QueueData has the numbers of queues of a topic on one broker.
type QueueData struct {
	Broker string `json:"brokerName"`
	Read   int    `json:"readQueueNums"`
	Write  int    `json:"writeQueueNums"`
	Perm   int    `json:"perm"`
	Flag   int    `json:"topicSysFlag"`
}

// BrokerData has the addresses of one broker by the role's number; "0" is the master.
type BrokerData struct {
	Cluster   string            `json:"cluster"`
	Name      string            `json:"brokerName"`
	Addresses map[string]string `json:"brokerAddrs"`
}

// Master returns the address of the master, or "" if there is none.
func (b BrokerData) Master() string { return b.Addresses["0"] }

// Replicas returns the numbers of the master and the slaves that have an address, in order, at most most of them.
func (b BrokerData) Replicas(most int) []int {
	var ids []int
	for key, address := range b.Addresses {
		if id, err := strconv.Atoi(key); err == nil && id >= 0 && strconv.Itoa(id) == key && address != "" {
			ids = append(ids, id)
		}
	}
	slices.Sort(ids)
	return ids[:min(len(ids), most)]
}

// Cluster lists all brokers that a name server knows.
type Cluster struct {
	Brokers map[string]BrokerData `json:"brokerAddrTable"`
}

// DecodeJSON decodes the body of a response. Java brokers write JSON with numbers as keys, which it accepts.
func DecodeJSON(body []byte, v any) error {
	if err := json.Unmarshal(quoteKeys(body), v); err != nil {
		return fmt.Errorf("%w body: %w", ErrMalformed, err)
	}
	return nil
}

// quoteKeys puts quotes around keys that are bare numbers. They may be negative: RocketMQ 4 keeps an offset for whatever queue a client
// names, and lists it to all.
func quoteKeys(b []byte) []byte {
	out := make([]byte, 0, len(b)+16)
	inString, before := false, byte(0) // before: the last byte that isn't white space
	for i := 0; i < len(b); i++ {
		ch := b[i]
		switch {
		case inString:
			if ch == '\\' && i+1 < len(b) {
				out = append(out, ch)
				i++
				ch = b[i]
			} else if ch == '"' {
				inString = false
			}
		case ch == '"':
			inString = true
		case (before == '{' || before == ',') && (ch == '-' || ch >= '0' && ch <= '9'):
			end := i + 1
			for end < len(b) && b[end] >= '0' && b[end] <= '9' {
				end++
			}
			if end < len(b) && b[end] == ':' {
				out = append(append(append(out, '"'), b[i:end]...), '"')
				i, before = end-1, '"'
				continue
			}
		}
		out = append(out, ch)
		if ch != ' ' && ch != '\n' && ch != '\t' && ch != '\r' {
			before = ch
		}
	}
	return out
}
