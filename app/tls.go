package app

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"

	"github.com/rocketflow/rocketflow/internal/valid"
)

// systemAuthorities is the value of ROCKETMQ_TLS_CA for the machine's authorities.
const systemAuthorities = "system"

// TLSFromEnv returns the tls.Config for rocketmq.Config.TLS with the settings that getenv, usually os.Getenv, returns:
//
//	ROCKETMQ_TLS_CA           file with the certificates, in PEM, of the authorities that sign the certificates of name servers and
//	                          brokers; or system for the machine's authorities, which is the default
//	ROCKETMQ_TLS_CERT         file with the client's certificate, in PEM, and those of the authorities between it and one that the
//	                          servers trust
//	ROCKETMQ_TLS_KEY          file with its private key, in PEM; needs ROCKETMQ_TLS_CERT and is needed by it
//	ROCKETMQ_TLS_SERVER_NAME  name that the servers' certificates must be for, unless they are for the servers' addresses
//
// Without any of them it returns nil: no TLS. The client's certificate and key are read again for each connection, so that a
// program goes on when they are renewed; a change of the authorities takes a restart. An error is a *rocketflow.FieldError whose
// Field is the variable and whose Reason names the file. [ConfigFromEnv] calls TLSFromEnv.
func TLSFromEnv(getenv func(string) string) (*tls.Config, error) {
	ca, certificate, key, serverName := getenv(EnvTLSCA), getenv(EnvTLSCert), getenv(EnvTLSKey), getenv(EnvTLSServerName)
	if ca == "" && certificate == "" && key == "" && serverName == "" {
		return nil, nil
	}
	config := &tls.Config{ServerName: serverName, MinVersion: tls.VersionTLS12}
	if ca != "" && ca != systemAuthorities {
		var err error
		if config.RootCAs, err = loadAuthorities(ca); err != nil {
			return nil, err
		}
	}
	switch {
	case certificate == "" && key == "":
		return config, nil
	case certificate == "":
		return nil, valid.Field(EnvTLSCert, "not set, but "+EnvTLSKey+" is")
	case key == "":
		return nil, valid.Field(EnvTLSKey, "not set, but "+EnvTLSCert+" is")
	}
	if _, err := loadCertificate(certificate, key); err != nil {
		return nil, err
	}
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return loadCertificate(certificate, key) }
	return config, nil
}

func loadAuthorities(file string) (*x509.CertPool, error) {
	content, err := readFile(EnvTLSCA, file)
	if err != nil {
		return nil, err
	}
	pool := x509.NewCertPool()
	for n := 0; ; n++ {
		var block *pem.Block
		if block, content = nextCertificate(content); block == nil {
			if n == 0 {
				return nil, valid.Fieldf(EnvTLSCA, "file %s has no certificate in PEM", file)
			}
			return pool, nil
		}
		c, err := x509.ParseCertificate(block.Bytes)
		if err != nil {
			return nil, valid.Wrap(EnvTLSCA, "file "+file+" has a certificate that can't be read", err)
		}
		pool.AddCert(c)
	}
}

func loadCertificate(certificate, key string) (*tls.Certificate, error) {
	certificatePEM, err := readFile(EnvTLSCert, certificate)
	if err != nil {
		return nil, err
	}
	block, _ := nextCertificate(certificatePEM)
	if block == nil {
		return nil, valid.Fieldf(EnvTLSCert, "file %s has no certificate in PEM", certificate)
	}
	if _, err := x509.ParseCertificate(block.Bytes); err != nil {
		return nil, valid.Wrap(EnvTLSCert, "file "+certificate+" has a certificate that can't be read", err)
	}
	keyPEM, err := readFile(EnvTLSKey, key)
	if err != nil {
		return nil, err
	}
	pair, err := tls.X509KeyPair(certificatePEM, keyPEM)
	if err != nil {
		return nil, valid.Wrap(EnvTLSKey, "file "+key+" is not the key of the certificate in "+certificate, err)
	}
	return &pair, nil
}

// readFile reads a file that a variable names. The error doesn't repeat the file's name.
func readFile(variable, file string) ([]byte, error) {
	content, err := os.ReadFile(file)
	if err != nil {
		var pathErr *os.PathError
		if errors.As(err, &pathErr) {
			err = pathErr.Err
		}
		return nil, valid.Wrap(variable, "file "+file+" can't be read", err)
	}
	return content, nil
}

// nextCertificate returns the next certificate in PEM data, or nil, and what follows it.
func nextCertificate(content []byte) (block *pem.Block, rest []byte) {
	for {
		if block, content = pem.Decode(content); block == nil || block.Type == "CERTIFICATE" {
			return block, content
		}
	}
}
