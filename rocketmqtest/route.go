package rocketmqtest

import "github.com/rocketflow/rocketflow/internal/remoting"

const (
	clusterName = "DefaultCluster"
	region      = "DefaultRegion"
)

// brokerData is a broker in a route.
type brokerData struct {
	remoting.BrokerData
	ActingMaster *bool `json:"enableActingMaster,omitempty"` // nil in RocketMQ 4
}

// brokerData describes this broker, which clients reach at an address.
func (s *Server) brokerData(address string) brokerData {
	b := brokerData{BrokerData: remoting.BrokerData{Cluster: clusterName, Name: s.config.Name, Addresses: map[string]string{"0": address}}}
	if !s.is4() {
		b.ActingMaster = new(bool)
	}
	return b
}

// routeOfTopic responds with the route of a topic (105).
func (s *Server) routeOfTopic(r *request) *remoting.Command {
	return s.route(r, s.broker.address.String())
}

// route responds with the route of a topic, whose broker clients reach at an address.
func (s *Server) route(r *request, address string) *remoting.Command {
	t := s.topics[r.Ext["topic"]]
	if t == nil || s.withdrawn {
		return r.refuse(remoting.TopicNotExist, "No topic route info in name server for the topic: %s", r.orNull("topic"))
	}
	return r.respondJSON(struct {
		Queues  []remoting.QueueData `json:"queueDatas"`
		Brokers []brokerData         `json:"brokerDatas"`
		Filters struct{}             `json:"filterServerTable"`
	}{
		Queues:  []remoting.QueueData{{Broker: s.config.Name, Read: t.read, Write: t.write, Perm: t.perm}},
		Brokers: []brokerData{s.brokerData(address)},
	})
}

// clusterInfo responds with the brokers of the cluster (106).
func (s *Server) clusterInfo(r *request) *remoting.Command {
	return r.respondJSON(map[string]any{
		"brokerAddrTable":  map[string]brokerData{s.config.Name: s.brokerData(s.broker.address.String())},
		"clusterAddrTable": map[string][]string{clusterName: {s.config.Name}},
	})
}
