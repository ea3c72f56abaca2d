// Package testcert makes certificates for tests of TLS connections:
//
//	authority := testcert.NewAuthority(t)
//	server := &tls.Config{Certificates: []tls.Certificate{authority.Issue(t, testcert.Leaf{Names: []string{"127.0.0.1"}}).TLS(t)}}
//	client := &tls.Config{RootCAs: authority.Pool()}
package testcert

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// Authority signs certificates.
type Authority struct {
	Certificate
	parsed *x509.Certificate
	key    *ecdsa.PrivateKey
}

// Certificate is a certificate with its key, in PEM. The key is in PKCS #8, which Java reads as well.
type Certificate struct {
	PEM, KeyPEM []byte
}

// Leaf says what a certificate is for. The zero value is one for no name, valid for an hour.
type Leaf struct {
	Names   []string  // DNS names and IP addresses
	Expires time.Time // defaults to in an hour
}

// NewAuthority makes an authority.
func NewAuthority(t testing.TB) *Authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := template("rocketflow test authority", time.Now().Add(time.Hour))
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &Authority{Certificate: encode(t, der, key), parsed: parsed, key: key}
}

// Issue makes a certificate, for servers and clients, that the authority has signed.
func (a *Authority) Issue(t testing.TB, leaf Leaf) Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	if leaf.Expires.IsZero() {
		leaf.Expires = time.Now().Add(time.Hour)
	}
	template := template("rocketflow test", leaf.Expires)
	for _, name := range leaf.Names {
		if ip := net.ParseIP(name); ip != nil {
			template.IPAddresses = append(template.IPAddresses, ip)
		} else {
			template.DNSNames = append(template.DNSNames, name)
		}
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.parsed, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	return encode(t, der, key)
}

// Pool returns a pool of this authority alone.
func (a *Authority) Pool() *x509.CertPool {
	pool := x509.NewCertPool()
	pool.AddCert(a.parsed)
	return pool
}

// TLS returns the certificate for a tls.Config.
func (c Certificate) TLS(t testing.TB) tls.Certificate {
	t.Helper()
	pair, err := tls.X509KeyPair(c.PEM, c.KeyPEM)
	if err != nil {
		t.Fatal(err)
	}
	return pair
}

// Files writes the certificate and the key to files of dir, whose names begin with name.
func (c Certificate) Files(t testing.TB, dir, name string) (certificate, key string) {
	t.Helper()
	certificate, key = filepath.Join(dir, name+".pem"), filepath.Join(dir, name+".key")
	for file, content := range map[string][]byte{certificate: c.PEM, key: c.KeyPEM} {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certificate, key
}

func template(name string, expires time.Time) *x509.Certificate {
	return &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()),
		Subject:      pkix.Name{CommonName: name},
		NotBefore:    time.Now().Add(-24 * time.Hour),
		NotAfter:     expires,
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
}

func encode(t testing.TB, der []byte, key *ecdsa.PrivateKey) Certificate {
	t.Helper()
	b, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return Certificate{
		PEM:    pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}),
		KeyPEM: pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: b}),
	}
}
