package groupmember

import (
	"cmp"
	"slices"
	"strings"
)

// Queue identifies a queue of a topic.
type Queue struct {
	Topic  string
	Broker string // the name of the broker
	ID     int
}

// compareQueues orders the queues as RocketMQ's own clients do: all members must see one order.
func compareQueues(a, b Queue) int {
	return cmp.Or(strings.Compare(a.Topic, b.Topic), strings.Compare(a.Broker, b.Broker), cmp.Compare(a.ID, b.ID))
}

// Allocate returns the queues of one topic that belong to the member self: the queues, in order, are divided into as many
// contiguous parts as there are members, in the order of their ids, and the first parts are larger by one queue if the
// division leaves a remainder (AllocateMessageQueueAveragely of RocketMQ's clients). It is empty if self is not a member.
// A member that is listed twice, because its old connection hasn't ended for the broker, counts once.
func Allocate(queues []Queue, members []string, self string) []Queue {
	queues, members = slices.Clone(queues), slices.Clone(members)
	slices.SortFunc(queues, compareQueues)
	slices.Sort(members)
	members = slices.Compact(members)
	at, listed := slices.BinarySearch(members, self)
	if !listed {
		return nil
	}
	size, larger := len(queues)/len(members), len(queues)%len(members)
	first := at*size + min(at, larger)
	if at < larger {
		size++
	}
	return queues[first : first+size]
}
