package main

import (
	"context"
	"database/sql"
	"encoding/json"
	"fmt"
	"net"

	"github.com/dtm-labs/client/dtmcli"
	"github.com/dtm-labs/client/dtmcli/logger"
	"github.com/dtm-labs/client/dtmgrpc"
	"github.com/google/uuid"
	"github.com/jackc/pgx/v5/stdlib"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/emptypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/rocketflow/rocketflow/bench/frame"
)

// open is dtm's two-phase message: prepare at the server, commit with a barrier row, submit; the server calls the
// consumer. By gRPC, which keeps one connection for all callers; by HTTP the client library keeps two or three.
func (s *dtmServer) open(ctx context.Context, b *frame.Bed, watch *frame.Stopwatch) (*frame.Way, error) {
	if err := s.start(ctx, b); err != nil {
		return nil, fmt.Errorf("start server: %w", err)
	}
	logger.InitLog("error")
	dtmcli.SetCurrentDBType(dtmcli.DBTypePostgres)
	dtmcli.SetBarrierTableName(barrierTable(b))
	db := stdlib.OpenDBFromPool(b.Pool)

	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	consumer := grpc.NewServer()
	consumer.RegisterService(&service, &account{db: db, watch: watch})
	go func() { _ = consumer.Serve(l) }() // until close stops it
	server, self := fmt.Sprintf("127.0.0.1:%d", s.port), l.Addr().String()+"/"+service.ServiceName+"/"
	return &frame.Way{
		Server: s.process.Process.Pid,
		Publish: func(_ context.Context, account string, cents int64) error {
			body, err := json.Marshal(frame.Credited{Account: account, Cents: cents, Note: frame.Note})
			if err != nil {
				return err
			}
			id := uuid.NewString()
			// DoAndSubmitDB does the same without the measurement.
			return dtmgrpc.NewMsgGrpc(server, id).Add(self+"Credited", wrapperspb.Bytes(body)).
				DoAndSubmit(self+"QueryPrepared", func(barrier *dtmcli.BranchBarrier) error {
					err := barrier.CallWithDB(db, func(tx *sql.Tx) error {
						_, err := tx.Exec(frame.InsertBusiness, account, cents)
						return err
					})
					if err == nil {
						watch.Commit(id)
					}
					return err
				})
		},
		Close: func() {
			consumer.Stop()
			_ = db.Close()
		},
	}, nil
}

// account is the consumer. It also responds to the server's queries about transactions that were not submitted.
type account struct {
	db    *sql.DB
	watch *frame.Stopwatch
}

func (a *account) credited(ctx context.Context, body *wrapperspb.BytesValue) (*emptypb.Empty, error) {
	barrier, err := dtmgrpc.BarrierFromGrpc(ctx)
	if err != nil {
		return nil, err
	}
	a.watch.Arrive(barrier.Gid)
	return &emptypb.Empty{}, nil
}

func (a *account) queryPrepared(ctx context.Context, _ *wrapperspb.BytesValue) (*emptypb.Empty, error) {
	barrier, err := dtmgrpc.BarrierFromGrpc(ctx)
	if err != nil {
		return nil, err
	}
	return &emptypb.Empty{}, dtmgrpc.DtmError2GrpcError(barrier.QueryPrepared(a.db))
}

// service is what generated code would contain.
var service = grpc.ServiceDesc{
	ServiceName: "bench.Account",
	HandlerType: (*any)(nil),
	Methods: []grpc.MethodDesc{
		{MethodName: "Credited", Handler: method((*account).credited)},
		{MethodName: "QueryPrepared", Handler: method((*account).queryPrepared)},
	},
}

func method(f func(*account, context.Context, *wrapperspb.BytesValue) (*emptypb.Empty, error)) func(any, context.Context, func(any) error, grpc.UnaryServerInterceptor) (any, error) {
	return func(s any, ctx context.Context, decode func(any) error, _ grpc.UnaryServerInterceptor) (any, error) {
		var in wrapperspb.BytesValue
		if err := decode(&in); err != nil {
			return nil, err
		}
		return f(s.(*account), ctx, &in)
	}
}
