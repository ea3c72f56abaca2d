package devstack

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"maps"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/rocketflow/rocketflow/internal/remoting"
)

// ClusterConfig configures a RocketMQ of several servers, for tests of what happens when one of them fails.
type ClusterConfig struct {
	// Version is the version of RocketMQ.
	// Defaults to RocketMQVersion.
	Version string
	// Brokers names the brokers. Brokers of the same name replicate the same messages: the first is the master and the others are its
	// slaves, unless Controller is set. Required.
	Brokers []string
	// NameServers is the number of name servers.
	// Defaults to 1.
	NameServers int
	// Sync makes masters respond to a send only when a slave has the message, too, or is late or missing.
	Sync bool
	// Controller runs a controller in the first name server, which chooses the master among brokers of the same name, and another one
	// when the master dies: some ten seconds later by RocketMQ's defaults, some three by those of this package. It needs RocketMQ 5.
	Controller bool
	// Proxy starts RocketMQ's proxy, to which clients speak as to a broker and a name server. It needs RocketMQ 5.
	Proxy bool
	// Properties are settings of all brokers that replace those of this package.
	Properties map[string]string
	// CacheDir is the directory of the downloaded jars.
	// Defaults to a directory in the user's cache.
	CacheDir string
	// Logger receives what is started and downloaded.
	// Defaults to a logger that discards everything.
	Logger *slog.Logger
}

// Cluster is a RocketMQ of several servers.
type Cluster struct {
	// NameServers and Brokers are the servers in the order of the configuration. Proxy is nil without one.
	NameServers, Brokers []*ClusterServer
	Proxy                *ClusterServer

	config ClusterConfig
	dir    *directory
}

// ClusterServer is one server of a Cluster. Its methods must not be called concurrently.
type ClusterServer struct {
	// Name is the name of the broker, which its slaves have, too; else the kind of server.
	Name string
	port int
	run  javaServer
	*process
}

// StartCluster starts the servers and returns when the first name server lists all brokers, after some ten seconds. ctx bounds the start
// only.
func StartCluster(ctx context.Context, config ClusterConfig) (*Cluster, error) {
	config.Logger = cmp.Or(config.Logger, slog.New(slog.DiscardHandler))
	config.Version = cmp.Or(config.Version, RocketMQVersion)
	config.NameServers = cmp.Or(config.NameServers, 1)
	installed, err := install(ctx, config.Version, config.CacheDir, config.Logger, brokerArtifacts...)
	if err != nil {
		return nil, err
	}
	if installed.is4() && (config.Controller || config.Proxy) {
		return nil, fmt.Errorf("start a cluster: RocketMQ %s has no controller and no proxy", config.Version)
	}
	c := &Cluster{config: config}
	if c.dir, err = openDirectory("", "", false); err != nil {
		return nil, err
	}
	if err := c.start(ctx, installed); err != nil {
		return nil, errors.Join(err, c.Stop())
	}
	config.Logger.Info("cluster started", "version", config.Version, "name_servers", c.NameServerAddresses(), "dir", c.dir.path)
	return c, nil
}

func (c *Cluster) start(ctx context.Context, installed installation) error {
	if err := checkDisk(c.dir.path); err != nil {
		return err
	}
	controller := 0
	for i := range c.config.NameServers {
		port, err := choosePort(0, namesBand, 1)
		if err != nil {
			return fmt.Errorf("start a name server: %w", err)
		}
		home := "namesrv-" + strconv.Itoa(i)
		properties := map[string]string{"listenPort": strconv.Itoa(port), "bindAddress": "127.0.0.1", "kvConfigPath": c.dir.sub(home + "/kvConfig.json")}
		if i == 0 && c.config.Controller {
			controller = port + 1
			maps.Copy(properties, map[string]string{
				"enableControllerInNamesrv": "true", "controllerDLegerGroup": "group", "controllerDLegerSelfId": "n0",
				"controllerDLegerPeers": "n0-" + address(controller), "controllerStorePath": c.dir.sub(home + "/controller"),
				"scanNotActiveBrokerInterval": "1000",
			})
		}
		s, err := c.add(installed, "RocketMQ's name server", "namesrv", home, port, properties, "-Xms64m", "-Xmx256m")
		if err != nil {
			return err
		}
		c.NameServers = append(c.NameServers, s)
	}
	// All ports are chosen together: a broker takes long to listen on its own.
	var offsets []int
	for i := range c.config.Brokers {
		offsets = append(offsets, portStep*i-2, portStep*i, portStep*i+1)
	}
	first, err := choosePort(0, brokerBand, offsets...)
	if err != nil {
		return fmt.Errorf("start a broker: %w", err)
	}
	replicas := map[string]int{}
	for i, name := range c.config.Brokers {
		port := first + portStep*i
		home := "broker-" + strconv.Itoa(i)
		properties := brokerProperties(port, joinAddresses(c.NameServerAddresses()), c.dir.sub(home+"/store"))
		properties["brokerName"] = name
		switch id := replicas[name]; {
		case c.config.Controller:
			maps.Copy(properties, map[string]string{
				"enableControllerMode": "true", "controllerAddr": address(controller), "brokerId": "-1", "brokerRole": "SLAVE",
				"allAckInSyncStateSet": "true", "brokerHeartbeatInterval": "500", "brokerNotActiveTimeoutMillis": "3000",
				"controllerHeartBeatTimeoutMills": "3000", "syncBrokerMetadataPeriod": "1000", "checkSyncStateSetPeriod": "1000",
			})
		case id > 0:
			properties["brokerId"], properties["brokerRole"] = strconv.Itoa(id), "SLAVE"
		case c.config.Sync:
			properties["brokerRole"] = "SYNC_MASTER"
		}
		replicas[name]++
		maps.Copy(properties, c.config.Properties)
		s, err := c.add(installed, "RocketMQ's broker", "broker", home, port, properties, "-Xms192m", "-Xmx384m", "-XX:MaxDirectMemorySize=512m")
		if err != nil {
			return err
		}
		s.Name = name
		c.Brokers = append(c.Brokers, s)
	}
	if err := c.AwaitBrokers(ctx); err != nil || !c.config.Proxy {
		return err
	}
	return c.startProxy(ctx, installed)
}

// portStep is the distance between the ports of two brokers: each uses the ports around its own, too.
const portStep = 5

// startProxy starts the proxy in front of all brokers.
func (c *Cluster) startProxy(ctx context.Context, brokers installation) error {
	installed, err := install(ctx, brokers.version, c.config.CacheDir, c.config.Logger, "proxy")
	if err != nil {
		return err
	}
	port, err := choosePort(0, brokerBand, 1)
	if err != nil {
		return fmt.Errorf("start a proxy: %w", err)
	}
	c.Proxy, err = c.add(installed, "RocketMQ's proxy", "proxy", "proxy", port, nil, "-Xms192m", "-Xmx384m", "-XX:MaxDirectMemorySize=512m")
	if err != nil {
		return err
	}
	return c.Proxy.await(ctx, func(ctx context.Context) error {
		ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
		defer cancel()
		conn, err := remoting.Dial(ctx, c.Proxy.Address(), remoting.Credentials{}, nil)
		if err != nil {
			return err
		}
		defer conn.Close()
		response, err := conn.Call(ctx, &remoting.Command{Code: remoting.RouteOfTopic, Ext: map[string]string{"topic": "TBW102"}})
		if response == nil {
			return err
		}
		return nil // it answers, whatever it says
	})
}

// add writes the configuration of a server and starts it.
func (c *Cluster) add(installed installation, name, role, home string, port int, properties map[string]string, options ...string) (*ClusterServer, error) {
	s := &ClusterServer{Name: role, port: port, run: javaServer{installation: installed, dir: c.dir, name: name, role: role, home: home, options: options}}
	var err error
	if role == "proxy" {
		err = writeJSON(c.dir.sub(home+".conf"), map[string]any{
			"rocketMQClusterName": "DefaultCluster", "namesrvAddr": joinAddresses(c.NameServerAddresses()), "proxyMode": "CLUSTER",
			"enableRemotingLocalProxyGrpc": false, "remotingListenPort": port, "grpcServerPort": port + 1, "localServeAddr": "127.0.0.1",
			"useEndpointPortFromRequest": false,
		})
	} else {
		err = writeProperties(c.dir.sub(home+".conf"), properties)
	}
	if err != nil {
		return nil, fmt.Errorf("configure %s: %w", name, err)
	}
	s.process, err = s.run.start()
	return s, err
}

// AwaitBrokers waits until every broker has booted and the first name server that runs lists all that run, with a master of each name.
func (c *Cluster) AwaitBrokers(ctx context.Context) error {
	for _, b := range c.Brokers {
		if b.ended() {
			continue
		}
		if err := b.await(ctx, func(ctx context.Context) error { return c.listed(ctx, b) }); err != nil {
			return err
		}
	}
	return nil
}

// AwaitNameServers waits until every name server lists every broker that runs: brokers register at one that was started again within half
// a minute.
func (c *Cluster) AwaitNameServers(ctx context.Context) error {
	for _, s := range c.NameServers {
		if err := s.await(ctx, func(ctx context.Context) error {
			ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
			defer cancel()
			brokers, err := brokersOf(ctx, s.Address(), nil)
			for _, b := range c.Brokers {
				if data := brokers[b.Name]; err == nil && !b.ended() && data.Master() == "" {
					err = fmt.Errorf("it lists no master of %s", b.Name)
				}
			}
			return err
		}); err != nil {
			return err
		}
	}
	return nil
}

// listed returns nil if a name server lists the broker, and a master of its name.
func (c *Cluster) listed(ctx context.Context, b *ClusterServer) error {
	for _, s := range c.NameServers {
		if s.ended() {
			return s.failure("did not start")
		}
	}
	if !bytes.Contains(b.output(), []byte("boot success")) {
		return errors.New("it has not booted")
	}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	brokers, err := brokersOf(ctx, c.NameServers[0].Address(), nil)
	if err != nil {
		return err
	}
	data := brokers[b.Name]
	for _, a := range data.Addresses {
		if a == b.Address() && data.Master() != "" {
			return nil
		}
	}
	return fmt.Errorf("the name server lists %v", data.Addresses)
}

// Master returns the broker that the first name server lists as the master of a name, or an error if there is none.
func (c *Cluster) Master(ctx context.Context, name string) (*ClusterServer, error) {
	brokers, err := brokersOf(ctx, c.NameServers[0].Address(), nil)
	if err != nil {
		return nil, err
	}
	for _, b := range c.Brokers {
		if data := brokers[name]; data.Master() == b.Address() {
			return b, nil
		}
	}
	return nil, fmt.Errorf("the name server lists no master of %s", name)
}

// InSync returns how many brokers of a name have all that the master has, so that the controller would choose one of them.
func (c *Cluster) InSync(ctx context.Context, name string) (int, error) {
	conn, err := remoting.Dial(ctx, address(c.NameServers[0].port+1), remoting.Credentials{}, nil)
	if err != nil {
		return 0, err
	}
	defer conn.Close()
	response, err := conn.Call(ctx, &remoting.Command{Code: remoting.SyncStates, Body: []byte(encode([]string{name}))})
	if err != nil {
		return 0, err
	}
	var states struct {
		Table map[string]struct {
			InSync []struct{} `json:"inSyncReplicas"`
		} `json:"replicasInfoTable"`
	}
	if err := remoting.DecodeJSON(response.Body, &states); err != nil {
		return 0, err
	}
	return len(states.Table[name].InSync), nil
}

// NameServerAddresses returns the addresses of the name servers.
func (c *Cluster) NameServerAddresses() []string {
	var all []string
	for _, s := range c.NameServers {
		all = append(all, s.Address())
	}
	return all
}

// Dir returns the directory of messages, logs and configurations.
func (c *Cluster) Dir() string { return c.dir.path }

// Stop kills all servers and removes their directory.
func (c *Cluster) Stop() error {
	var group errgroup.Group
	servers := append(append([]*ClusterServer{}, c.NameServers...), c.Brokers...)
	if c.Proxy != nil {
		servers = append(servers, c.Proxy)
	}
	for _, s := range servers {
		if s.process != nil {
			group.Go(func() error { s.kill(); return nil })
		}
	}
	_ = group.Wait() // nothing fails
	return c.dir.close()
}

// Address returns the address of the server.
func (s *ClusterServer) Address() string { return address(s.port) }

// Kill kills the server with SIGKILL.
func (s *ClusterServer) Kill() { s.kill() }

// Shutdown stops the server as an operator does, with SIGTERM.
func (s *ClusterServer) Shutdown(ctx context.Context) error { return s.stop(ctx, syscall.SIGTERM) }

// Start starts the server again on the same port and store, after Kill or Shutdown. It doesn't wait until the server is ready.
func (s *ClusterServer) Start() (err error) {
	if !s.ended() {
		return fmt.Errorf("%s runs", s.run.name)
	}
	s.process, err = s.run.start()
	return err
}

// Pause freezes the server with SIGSTOP: connections stay open and requests get no response.
func (s *ClusterServer) Pause() error { return s.signal(syscall.SIGSTOP) }

// Continue ends a Pause.
func (s *ClusterServer) Continue() error { return s.signal(syscall.SIGCONT) }
