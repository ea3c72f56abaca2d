package remoting

import (
	"bytes"
	"fmt"
)

// What a name server or broker may list. More costs the request, and neither memory nor connections.
const (
	maxListBody  = 4 << 20 // bytes; a route over 4096 brokers takes one to two million
	maxListParts = 1 << 18 // values in it, before it is decoded: each takes a hundred times the three bytes of an empty one

	maxQueues    = 1 << 16 // of a topic
	maxAddresses = 1 << 8  // of a broker
	maxMembers   = 1 << 16 // of a group

	// MaxBrokers is how many brokers there can be.
	MaxBrokers = 1 << 12
)

// decodeList decodes the body of a response that lists something, unless it is longer than any such list.
func decodeList(what string, body []byte, v any) error {
	if len(body) > maxListBody {
		return fmt.Errorf("%w %s: %d bytes, want at most %d", ErrMalformed, what, len(body), maxListBody)
	}
	if parts := bytes.Count(body, []byte{','}); parts >= maxListParts {
		return fmt.Errorf("%w %s: about %d values, want fewer than %d", ErrMalformed, what, parts, maxListParts)
	}
	if err := DecodeJSON(body, v); err != nil {
		return fmt.Errorf("%s: %w", what, err)
	}
	return nil
}

// DecodeRoute decodes a route, and returns an error that matches ErrMalformed for one that has more than a topic can have. A broker that
// is listed more than once becomes one with the addresses of all.
func DecodeRoute(body []byte) (Route, error) {
	var route Route
	if err := decodeList("route", body, &route); err != nil {
		return Route{}, err
	}
	tooMany := func(n int, of string, most int) (Route, error) {
		return Route{}, fmt.Errorf("%w route: %d %s, want at most %d", ErrMalformed, n, of, most)
	}
	read, write := 0, 0
	for _, q := range route.Queues {
		if q.Read < 0 || q.Write < 0 || q.Read > maxQueues || q.Write > maxQueues {
			return Route{}, fmt.Errorf("%w route: broker %.80q has %d and %d queues, want 0 to %d", ErrMalformed, q.Broker, q.Read, q.Write, maxQueues)
		}
		read, write = read+q.Read, write+q.Write
	}
	switch most := max(read, write); {
	case len(route.Queues) > MaxBrokers:
		return tooMany(len(route.Queues), "queueDatas", MaxBrokers)
	case most > maxQueues:
		return tooMany(most, "queues", maxQueues)
	case len(route.Brokers) > MaxBrokers:
		return tooMany(len(route.Brokers), "brokers", MaxBrokers)
	}
	at := map[string]int{}
	var brokers []BrokerData
	for _, b := range route.Brokers {
		i, again := at[b.Name]
		if !again {
			i = len(brokers)
			at[b.Name], brokers = i, append(brokers, BrokerData{Cluster: b.Cluster, Name: b.Name, Addresses: map[string]string{}})
		}
		for id, address := range b.Addresses {
			if brokers[i].Addresses[id] == "" {
				brokers[i].Addresses[id] = address
			}
		}
		if n := len(brokers[i].Addresses); n > maxAddresses {
			return tooMany(n, "addresses of a broker", maxAddresses)
		}
	}
	route.Brokers = brokers
	return route, nil
}

// DecodeCluster decodes the list of all brokers. The error matches ErrMalformed, also for more than there can be.
func DecodeCluster(body []byte) (Cluster, error) {
	var cluster Cluster
	if err := decodeList("list of brokers", body, &cluster); err != nil {
		return Cluster{}, err
	}
	if n := len(cluster.Brokers); n > MaxBrokers {
		return Cluster{}, fmt.Errorf("%w list of brokers: %d brokers, want at most %d", ErrMalformed, n, MaxBrokers)
	}
	for name, b := range cluster.Brokers {
		if n := len(b.Addresses); n > maxAddresses {
			return Cluster{}, fmt.Errorf("%w list of brokers: %d addresses of broker %.80q, want at most %d", ErrMalformed, n, name, maxAddresses)
		}
	}
	return cluster, nil
}

// DecodeMembers decodes the response to ConsumerList: the client ids of a group's members. The error matches ErrMalformed, also for more
// than a group can have.
func DecodeMembers(body []byte) ([]string, error) {
	var list struct {
		IDs []string `json:"consumerIdList"`
	}
	if err := decodeList("list of members", body, &list); err != nil {
		return nil, err
	}
	if n := len(list.IDs); n > maxMembers {
		return nil, fmt.Errorf("%w list of members: %d ids, want at most %d", ErrMalformed, n, maxMembers)
	}
	return list.IDs, nil
}
