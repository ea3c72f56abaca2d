package rocketmq

import (
	"cmp"
	"crypto/tls"
	"errors"

	"github.com/rocketflow/rocketflow/internal/printable"
	"github.com/rocketflow/rocketflow/internal/remoting"
	"github.com/rocketflow/rocketflow/internal/valid"
)

const tlsField = "rocketmq.Config.TLS"

// validateTLS refuses TLS for a Client whose sends and consumers go through rocketmq-client-go.
func (c Config) validateTLS() error {
	if c.TLS != nil && c.Transport != Own {
		return valid.Field(tlsField, "needs the own transport: leave rocketmq.Config.Transport at its default, Own (rocketmq-client-go makes no TLS connections that it verifies)")
	}
	return nil
}

// tlsFor returns the configuration for connections to a name server or broker that was configured by a host name and is
// dialled by its IP address: unless Config.TLS names another, its certificate must be for the host name.
func tlsFor(host string, config *tls.Config) *tls.Config {
	if config == nil || host == "" {
		return config
	}
	config = config.Clone()
	config.ServerName = cmp.Or(config.ServerName, host)
	return config
}

// tlsRefused returns err as the error of Config.TLS if it says that no TLS connection can be made until someone changes a
// certificate or a setting, else nil.
func (c *Client) tlsRefused(err error) error {
	var refused *remoting.TLSError
	if !errors.As(err, &refused) {
		return nil
	}
	server := "name server"
	for _, b := range c.allBrokerConns() {
		if b.address == refused.Address {
			server = "broker " + printable.Line(b.name, printable.Name) + " at"
		}
	}
	return valid.Wrap(tlsField, server+" "+refused.Address+" "+string(refused.Problem), refused.Err)
}
