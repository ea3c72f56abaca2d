package rocketmqtest

import "github.com/rocketflow/rocketflow/internal/remoting"

const clusterName = "DefaultCluster"

func (s *Server) brokerData() remoting.BrokerData {
	return remoting.BrokerData{Cluster: clusterName, Name: s.config.Name, Addresses: map[string]string{"0": s.broker.address.String()}}
}

// routeOfTopic says where a topic's queues are (105).
func (s *Server) routeOfTopic(r *request) *remoting.Command {
	t := s.topics[r.Ext["topic"]]
	if t == nil || s.withdrawn {
		return r.refuse(remoting.TopicNotExist, "No topic route info in name server for the topic: %s", r.orNull("topic"))
	}
	return r.answerJSON(remoting.Route{
		Queues:  []remoting.QueueData{{Broker: s.config.Name, Read: t.read, Write: t.write, Perm: t.perm}},
		Brokers: []remoting.BrokerData{s.brokerData()},
	})
}

// clusterInfo lists the brokers (106).
func (s *Server) clusterInfo(r *request) *remoting.Command {
	return r.answerJSON(struct {
		remoting.Cluster
		Names map[string][]string `json:"clusterAddrTable"`
	}{
		remoting.Cluster{Brokers: map[string]remoting.BrokerData{s.config.Name: s.brokerData()}},
		map[string][]string{clusterName: {s.config.Name}},
	})
}
