package rocketmq_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/rocketflow/rocketflow/test/poll"

	"github.com/rocketflow/rocketflow"
	"github.com/rocketflow/rocketflow/broker"
	"github.com/rocketflow/rocketflow/internal/devstack"
	"github.com/rocketflow/rocketflow/rocketmq"
	"github.com/rocketflow/rocketflow/rocketmqtest"
	"github.com/rocketflow/rocketflow/test/testbroker"
	"github.com/rocketflow/rocketflow/test/testcert"
)

// openOwn opens a client with the own transport, which can use TLS.
func openOwn(t *testing.T, nameServer string, change func(*rocketmq.Config)) (*rocketmq.Client, error) {
	t.Helper()
	config := rocketmq.Config{NameServers: []string{nameServer}, Service: "tls", Transport: rocketmq.Own, Logger: slog.New(slog.DiscardHandler)}
	change(&config)
	c, err := rocketmq.Open(deadline(t, 20*time.Second), config)
	if err == nil {
		t.Cleanup(func() {
			if err := c.Close(context.Background()); err != nil {
				t.Errorf("close: %v", err)
			}
		})
	}
	return c, err
}

// checkClient checks that a client reaches the name server and the broker, and sends.
func checkClient(t *testing.T, c *rocketmq.Client) {
	t.Helper()
	ctx := deadline(t, 20*time.Second)
	if err := c.CreateTopics(ctx, broker.Topic{Name: "orders"}); err != nil {
		t.Error(err)
	}
	if err := c.VerifyTopics(ctx, "orders"); err != nil {
		t.Error(err)
	}
	if err := c.Ping(ctx); err != nil {
		t.Error(err)
	}
	if _, err := c.Send(ctx, broker.Message{Topic: "orders", Body: []byte("placed")}); err != nil {
		t.Error(err)
	}
}

func TestTLS(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	own := []tls.Certificate{authority.Issue(t, testcert.Leaf{}).TLS(t)}
	server := func(names ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, testcert.Leaf{Names: names}).TLS(t)}}
	}
	mutual := server("127.0.0.1")
	mutual.ClientCAs, mutual.ClientAuth = authority.Pool(), tls.RequireAndVerifyClientCert
	old := mutual.Clone()
	old.MaxVersion = tls.VersionTLS12
	for name, c := range map[string]struct {
		server, client *tls.Config
	}{
		"certificate for the address":     {server("127.0.0.1"), &tls.Config{RootCAs: authority.Pool()}},
		"certificate for ServerName":      {server("rocketmq.example"), &tls.Config{RootCAs: authority.Pool(), ServerName: "rocketmq.example"}},
		"verification is off":             {server("rocketmq.example"), &tls.Config{InsecureSkipVerify: true}},
		"client certificate":              {mutual, &tls.Config{RootCAs: authority.Pool(), Certificates: own}},
		"client certificate over TLS 1.2": {old, &tls.Config{RootCAs: authority.Pool(), Certificates: own}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			mq := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: c.server})
			client, err := openOwn(t, mq.Addr(), func(config *rocketmq.Config) { config.TLS = c.client })
			if err != nil {
				t.Fatal(err)
			}
			checkClient(t, client)
		})
	}
}

// A name server that is configured by its host name needs a certificate for that name, not for its address.
func TestNameServersCertificateIsForItsHostName(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: &tls.Config{GetCertificate: func(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
		names := []string{"127.0.0.1"} // to the broker, whose address the client has from the name server
		if hello.ServerName != "" {
			names = []string{"localhost"}
		}
		c := authority.Issue(t, testcert.Leaf{Names: names}).TLS(t)
		return &c, nil
	}}})
	_, port, _ := net.SplitHostPort(mq.Addr())
	client, err := openOwn(t, "localhost:"+port, func(c *rocketmq.Config) { c.TLS = &tls.Config{RootCAs: authority.Pool()} })
	if err != nil {
		t.Fatal(err)
	}
	checkClient(t, client)
}

// What someone has to mend is an error at Open that says which it is, at once and also with AwaitBroker.
func TestOpenSaysWhatPreventsTLS(t *testing.T) {
	t.Parallel()
	authority, other := testcert.NewAuthority(t), testcert.NewAuthority(t)
	issue := func(by *testcert.Authority, leaf testcert.Leaf) []tls.Certificate {
		return []tls.Certificate{by.Issue(t, leaf).TLS(t)}
	}
	names := []string{"127.0.0.1"}
	good := issue(authority, testcert.Leaf{Names: names})
	past := time.Now().Add(-time.Minute)
	mutual := func(version uint16) *tls.Config {
		return &tls.Config{Certificates: good, ClientCAs: authority.Pool(), ClientAuth: tls.RequireAndVerifyClientCert, MaxVersion: version}
	}
	trusting := func() *tls.Config { return &tls.Config{RootCAs: authority.Pool()} }
	with := func(client []tls.Certificate) *tls.Config {
		c := trusting()
		c.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &client[0], nil }
		return c
	}
	for name, c := range map[string]struct {
		server, client *tls.Config
		want           []string
	}{
		"wrong CA":      {&tls.Config{Certificates: good}, &tls.Config{RootCAs: other.Pool()}, []string{"no trusted authority has signed", "ROCKETMQ_TLS_CA"}},
		"system's CAs":  {&tls.Config{Certificates: good}, &tls.Config{}, []string{"no trusted authority has signed", "ROCKETMQ_TLS_CA"}},
		"wrong address": {&tls.Config{Certificates: issue(authority, testcert.Leaf{Names: []string{"10.0.0.1"}})}, trusting(), []string{"for another name", "ROCKETMQ_TLS_SERVER_NAME", "10.0.0.1, not 127.0.0.1"}},
		"wrong name":    {&tls.Config{Certificates: good}, &tls.Config{RootCAs: authority.Pool(), ServerName: "mq.example"}, []string{"for another name", "ROCKETMQ_TLS_SERVER_NAME", "mq.example"}},
		"expired":       {&tls.Config{Certificates: issue(authority, testcert.Leaf{Names: names, Expires: past})}, trusting(), []string{"has expired", "renew it"}},

		"no client certificate":                       {mutual(0), trusting(), []string{"refuses the client's certificate", "ROCKETMQ_TLS_CERT", "certificate required"}},
		"no client certificate, TLS 1.2":              {mutual(tls.VersionTLS12), trusting(), []string{"refuses the client's certificate", "ROCKETMQ_TLS_CERT"}},
		"client certificate of a wrong CA":            {mutual(0), with(issue(other, testcert.Leaf{})), []string{"refuses the client's certificate", "ROCKETMQ_TLS_CERT"}},
		"client certificate that has expired":         {mutual(0), with(issue(authority, testcert.Leaf{Expires: past})), []string{"refuses the client's certificate", "ROCKETMQ_TLS_CERT"}},
		"no common version":                           {&tls.Config{Certificates: good, MinVersion: tls.VersionTLS13}, &tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS12}, []string{"can't agree", "versions"}},
		"client certificate that isn't sent, TLS 1.2": {mutual(tls.VersionTLS12), &tls.Config{RootCAs: authority.Pool(), Certificates: issue(other, testcert.Leaf{})}, []string{"refuses the client's certificate", "ROCKETMQ_TLS_CERT"}},
		"server without TLS":                          {nil, trusting(), []string{"takes no TLS connections", "ROCKETMQ_TLS_CA"}},
		"TLS is not configured":                       {&tls.Config{Certificates: good}, nil, []string{"takes TLS connections only", "ROCKETMQ_TLS_CA"}},
		"TLS with a client's certificate isn't":       {mutual(tls.VersionTLS12), nil, []string{"takes TLS connections only", "ROCKETMQ_TLS_CA"}},
	} {
		for _, await := range []bool{false, true} {
			t.Run(name, func(t *testing.T) {
				t.Parallel()
				mq := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: c.server})
				start := time.Now()
				_, err := openOwn(t, mq.Addr(), func(config *rocketmq.Config) { config.TLS, config.AwaitBroker = c.client, await })
				checkTLSError(t, err, append(c.want, "name server "+mq.Addr())...)
				if took := time.Since(start); took > 5*time.Second {
					t.Errorf("open failed after %v", took)
				}
			})
		}
	}
}

func checkTLSError(t *testing.T, err error, want ...string) {
	t.Helper()
	var field *rocketflow.FieldError
	if !errors.As(err, &field) || field.Field != "rocketmq.Config.TLS" || errors.Is(err, broker.ErrUnavailable) {
		t.Fatalf("got %v", err)
	}
	for _, text := range want {
		if !strings.Contains(field.Reason, text) {
			t.Errorf("the error doesn't say %q: %v", text, err)
		}
	}
}

// The name server's certificate is good and the broker's is not: the error names the broker.
func TestOpenNamesTheBrokerThatPreventsTLS(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	certificate := func(names ...string) *tls.Config {
		return &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, testcert.Leaf{Names: names}).TLS(t)}}
	}
	forNames, forBroker := certificate("localhost"), certificate("10.0.0.1")
	mq := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: &tls.Config{GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if hello.ServerName != "" { // the client has the broker's address from the name server
			return forNames, nil
		}
		return forBroker, nil
	}}})
	_, port, _ := net.SplitHostPort(mq.Addr())
	_, err := openOwn(t, "localhost:"+port, func(c *rocketmq.Config) { c.TLS, c.AwaitBroker = &tls.Config{RootCAs: authority.Pool()}, true })
	checkTLSError(t, err, "broker broker-a at "+mq.BrokerAddr(), "for another name")
}

// A broker that refuses connections or never answers is awaited also with TLS, and a certificate that expires while the client runs
// is an outage: what is sent then stays owed.
func TestTLSOutagesAreAwaited(t *testing.T) {
	t.Parallel()
	authority := testcert.NewAuthority(t)
	certificate := authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}}).TLS(t)
	tlsOf := func(c *rocketmq.Config) { c.TLS, c.AwaitBroker = &tls.Config{RootCAs: authority.Pool()}, true }

	t.Run("a server that is away", func(t *testing.T) {
		t.Parallel()
		for what, address := range badAddresses(t) {
			t.Run(what, func(t *testing.T) {
				t.Parallel()
				client, err := openOwn(t, address, tlsOf)
				if err != nil {
					t.Fatal(err)
				}
				if err := client.Ping(deadline(t, 20*time.Second)); !errors.Is(err, broker.ErrUnavailable) {
					t.Errorf("ping: %v", err)
				}
			})
		}
	})
	t.Run("a broker that returns", func(t *testing.T) {
		t.Parallel()
		mq := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: &tls.Config{Certificates: []tls.Certificate{certificate}}})
		mq.Stop(rocketmqtest.LoseMemory)
		client, err := openOwn(t, mq.Addr(), tlsOf)
		if err != nil {
			t.Fatal(err)
		}
		if err := mq.Start(); err != nil {
			t.Fatal(err)
		}
		poll.Succeeds(t, 20*time.Second, func() error { return client.Ping(t.Context()) })
		checkClient(t, client)
	})
	t.Run("a certificate that expires", func(t *testing.T) {
		t.Parallel()
		expired := authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}, Expires: time.Now().Add(-time.Minute)}).TLS(t)
		present := make(chan *tls.Certificate, 1)
		present <- &certificate
		mq := rocketmqtest.RunT(t, rocketmqtest.Config{TLS: &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			c := <-present
			present <- c
			return c, nil
		}}})
		client, err := openOwn(t, mq.Addr(), tlsOf)
		if err != nil {
			t.Fatal(err)
		}
		<-present
		present <- &expired
		if err := mq.Restart(rocketmqtest.LoseMemory); err != nil {
			t.Fatal(err)
		}
		poll.Succeeds(t, 20*time.Second, func() error {
			err := client.Ping(t.Context())
			if err == nil || !strings.Contains(err.Error(), "has expired") {
				return fmt.Errorf("ping: %w", err)
			}
			if !errors.Is(err, broker.ErrUnavailable) || errors.Is(err, broker.ErrRejected) {
				t.Errorf("ping: %v", err)
			}
			return nil
		})
	})
}

// A real RocketMQ with tls.server.mode=enforcing, whose broker also speaks TLS to its name server.
func TestTLSOnRocketMQ(t *testing.T) {
	testbroker.NeedsReal(t)
	t.Parallel()
	authority, other := testcert.NewAuthority(t), testcert.NewAuthority(t)
	own := []tls.Certificate{authority.Issue(t, testcert.Leaf{}).TLS(t)}
	ctx := deadline(t, 5*time.Minute)
	secured := testbroker.StartTLS(t, authority)
	good := &tls.Config{RootCAs: authority.Pool(), Certificates: own}

	for name, c := range map[string]struct {
		client *tls.Config
		want   string
	}{
		"wrong CA":                       {&tls.Config{RootCAs: other.Pool(), Certificates: own}, "no trusted authority has signed"},
		"wrong name":                     {&tls.Config{RootCAs: authority.Pool(), Certificates: own, ServerName: "other.example"}, "for another name"},
		"no client certificate":          {&tls.Config{RootCAs: authority.Pool()}, "refuses the client's certificate"},
		"no client certificate, TLS 1.2": {&tls.Config{RootCAs: authority.Pool(), MaxVersion: tls.VersionTLS12}, "refuses the client's certificate"},
		"client certificate of a wrong CA": {&tls.Config{RootCAs: authority.Pool(), GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			c := other.Issue(t, testcert.Leaf{}).TLS(t)
			return &c, nil
		}}, "refuses the client's certificate"},
		"TLS is not configured": {nil, "takes TLS connections only"},
	} {
		t.Run(name, func(t *testing.T) {
			_, err := openOwn(t, secured.NameServer(), func(config *rocketmq.Config) { config.TLS, config.AwaitBroker = c.client, true })
			checkTLSError(t, err, c.want, "name server "+secured.NameServer())
		})
	}
	t.Run("certificate of RocketMQ's own making", func(t *testing.T) {
		// Without tls.server.mode and certificates RocketMQ takes both kinds of connections.
		_, err := openOwn(t, testbroker.NameServers(t)[0], func(config *rocketmq.Config) { config.TLS = good })
		checkTLSError(t, err, "presents a certificate")
	})
	for name, client := range map[string]*tls.Config{
		"certificate for the address":     good,
		"certificate for ServerName":      {RootCAs: authority.Pool(), Certificates: own, ServerName: "rocketmq.example"},
		"client certificate over TLS 1.2": {RootCAs: authority.Pool(), Certificates: own, MaxVersion: tls.VersionTLS12},
	} {
		t.Run(name, func(t *testing.T) {
			client, err := openOwn(t, secured.NameServer(), func(config *rocketmq.Config) { config.TLS = client })
			if err != nil {
				t.Fatal(err)
			}
			checkClient(t, client)
		})
	}
	t.Run("the broker restarts", func(t *testing.T) {
		client, err := openOwn(t, secured.NameServer(), func(config *rocketmq.Config) { config.TLS = good })
		if err != nil {
			t.Fatal(err)
		}
		secured.Kill()
		poll.Succeeds(t, time.Minute, func() error {
			if client.Ping(ctx) == nil {
				return errors.New("the broker is down and Ping returns nil")
			}
			return nil
		})
		if err := secured.Restart(ctx); err != nil {
			t.Fatal(err)
		}
		poll.Succeeds(t, time.Minute, func() error { return client.Ping(ctx) })
		checkClient(t, client)
	})
	t.Run("broker without TLS", func(t *testing.T) {
		mq := testbroker.StartRocketMQ(t, devstack.RocketMQConfig{JavaOptions: []string{"-Dtls.server.mode=disabled"}})
		_, err := openOwn(t, mq.NameServer(), func(config *rocketmq.Config) { config.TLS = &tls.Config{InsecureSkipVerify: true} })
		checkTLSError(t, err, "takes no TLS connections", "broker broker-a at "+mq.Broker())
	})
}

// rocketmq-client-go makes no TLS connections that it verifies, so nothing may go through it.
func TestTLSNeedsTheOwnTransport(t *testing.T) {
	t.Parallel()
	_, err := rocketmq.Open(t.Context(), rocketmq.Config{NameServers: []string{"127.0.0.1:1"}, Service: "tls", AwaitBroker: true, Transport: rocketmq.ClientGo, TLS: &tls.Config{}})
	checkTLSError(t, err, "needs the own transport")
}
