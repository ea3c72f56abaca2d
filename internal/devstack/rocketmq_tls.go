package devstack

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"os"
)

// TLSConfig has the certificates with which a name server and a broker require TLS, in PEM.
type TLSConfig struct {
	// Certificate and Key are those of both servers, also as clients of each other. The certificate must be for 127.0.0.1, and the
	// key in PKCS #8.
	Certificate, Key []byte
	// Authorities have signed Certificate and those of clients.
	Authorities []byte
	// RequireClientCertificate makes the servers refuse clients without a certificate.
	RequireClientCertificate bool
}

// client returns the configuration with which this process connects to the servers, or nil without TLS.
func (c *TLSConfig) client() (*tls.Config, error) {
	if c == nil {
		return nil, nil
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(c.Authorities) {
		return nil, errors.New("TLSConfig.Authorities has no certificate")
	}
	own, err := tls.X509KeyPair(c.Certificate, c.Key)
	if err != nil {
		return nil, err
	}
	return &tls.Config{RootCAs: pool, Certificates: []tls.Certificate{own}}, nil
}

// tlsFile is the file of both servers' TLS settings.
func (r *RocketMQ) tlsFile() string { return r.dir.sub("tls.properties") }

// configureTLS writes the certificates and the file that names them, for the servers and for the broker as a client of the name
// server.
func (r *RocketMQ) configureTLS() error {
	c := r.config.TLS
	certificate, key, authorities := r.dir.sub("tls.pem"), r.dir.sub("tls.key"), r.dir.sub("tls.ca.pem")
	for file, content := range map[string][]byte{certificate: c.Certificate, key: c.Key, authorities: c.Authorities} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			return err
		}
	}
	properties := map[string]string{
		"tls.test.mode.enable":     "false",
		"tls.server.certPath":      certificate,
		"tls.server.keyPath":       key,
		"tls.server.trustCertPath": authorities,
		"tls.client.certPath":      certificate,
		"tls.client.keyPath":       key,
		"tls.client.trustCertPath": authorities,
		"tls.client.authServer":    "true",
	}
	if c.RequireClientCertificate {
		properties["tls.server.authClient"], properties["tls.server.need.client.auth"] = "true", "require"
	}
	return writeProperties(r.tlsFile(), properties)
}
