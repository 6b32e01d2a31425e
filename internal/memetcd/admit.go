package memetcd

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// This file has what etcd refuses before it looks at any key.

func admitRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

func admitPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func admitDelete(r *pb.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

// admitTxn counts operations, those of nested transactions against what their parents have left, and looks for keys
// that would be written twice.
func admitTxn(r *pb.TxnRequest, maxOps int) error {
	if err := admitOps(r, maxOps); err != nil {
		return err
	}
	if _, _, err := writes(r.Success); err != nil {
		return err
	}
	_, _, err := writes(r.Failure)
	return err
}

func admitOps(r *pb.TxnRequest, maxOps int) error {
	n := max(len(r.Compare), len(r.Success), len(r.Failure))
	if n > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			var err error
			switch {
			case op.GetRequestRange() != nil:
				err = admitRange(op.GetRequestRange())
			case op.GetRequestPut() != nil:
				err = admitPut(op.GetRequestPut())
			case op.GetRequestDeleteRange() != nil:
				err = admitDelete(op.GetRequestDeleteRange())
			case op.GetRequestTxn() != nil:
				err = admitOps(op.GetRequestTxn(), maxOps-n)
			default:
				err = rpctypes.ErrGRPCKeyNotFound
			}
			if err != nil {
				return err
			}
		}
	}
	return nil
}

// span is a range of keys that is deleted.
type span struct{ from, to string }

func hit(dels []span, key string) bool {
	for _, d := range dels {
		if d.to == "" && key == d.from || d.to != "" && key >= d.from && key < d.to {
			return true
		}
	}
	return false
}

// writes collects the keys put and the ranges deleted by operations of which all are run, nested ones included.
func writes(ops []*pb.RequestOp) (puts map[string]bool, dels []span, err error) {
	puts = map[string]bool{}
	add := func(key string, twice bool) error {
		if twice || hit(dels, key) {
			return rpctypes.ErrGRPCDuplicateKey
		}
		puts[key] = true
		return nil
	}
	for _, op := range ops {
		if r := op.GetRequestDeleteRange(); r != nil {
			dels = append(dels, span{string(r.Key), string(r.RangeEnd)})
		}
	}
	for _, op := range ops {
		r := op.GetRequestTxn()
		if r == nil {
			continue
		}
		then, delThen, err := writes(r.Success)
		if err != nil {
			return nil, nil, err
		}
		otherwise, delElse, err := writes(r.Failure)
		if err != nil {
			return nil, nil, err
		}
		for key := range then {
			if err := add(key, puts[key]); err != nil {
				return nil, nil, err
			}
		}
		for key := range otherwise { // one of the two branches is run
			if err := add(key, puts[key] && !then[key]); err != nil {
				return nil, nil, err
			}
		}
		dels = append(append(dels, delThen...), delElse...)
	}
	for _, op := range ops {
		if r := op.GetRequestPut(); r != nil {
			if err := add(string(r.Key), puts[string(r.Key)]); err != nil {
				return nil, nil, err
			}
		}
	}
	return puts, dels, nil
}

func readOnly(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if op.GetRequestRange() == nil {
				return false
			}
		}
	}
	return true
}

// serializable reports whether any member may answer alone.
func serializable(r *pb.TxnRequest) bool {
	for _, ops := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range ops {
			if get := op.GetRequestRange(); get == nil || !get.Serializable {
				return false
			}
		}
	}
	return true
}
