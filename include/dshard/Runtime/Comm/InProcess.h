//===- InProcess.h - Collectives between threads ----------------*- C++ -*-===//
//
// Ranks are threads of this process: they meet at a barrier, read each other's
// buffers where they lie, and meet again. all_reduce: every member reduces its
// own slice in member order, then copies the slices of the others. Barriers
// spin about 20 us and then sleep. A sent message is copied and waits on the
// heap until it is received.
//
//===----------------------------------------------------------------------===//
#ifndef DSHARD_RUNTIME_COMM_INPROCESS_H
#define DSHARD_RUNTIME_COMM_INPROCESS_H

#include "dshard/Plan/Topology.h"
#include "dshard/Runtime/Communicator.h"
#include "dshard/Runtime/Cpu/ThreadPool.h"

#include <condition_variable>
#include <deque>
#include <map>
#include <memory>
#include <mutex>
#include <tuple>
#include <vector>

namespace dshard {

class InProcessWorld {
public:
  /// groups[g][i] lists the ranks of instance i of group g, by position.
  InProcessWorld(uint32_t ranks,
                 std::vector<std::vector<std::vector<uint32_t>>> groups);
  /// The groups of a plan.
  static std::unique_ptr<InProcessWorld> create(const plan::Plan &plan,
                                                const plan::Topology &topology);
  ~InProcessWorld();

  /// The rank's end. Large copies and reductions use `pool` when there is one.
  Communicator communicator(uint32_t rank, cpu::ThreadPool *pool = nullptr);

  void abort(const Status &reason);
  /// Why the world was aborted, if it was.
  Status failure();
  /// Forgets failures and messages. No rank may be inside a call.
  void reset();

  // What the functions of Communicator.h work with.
  struct Meeting;
  struct Member;
  bool isAborted() const { return aborted.load(std::memory_order_acquire); }
  void post(Member &member, uint32_t group, int64_t to, int64_t tag,
            const void *data, uint64_t bytes);
  Status take(Member &member, uint32_t group, int64_t from, int64_t tag,
              void *data, uint64_t bytes);
  uint64_t peakBufferedBytes();

private:
  using Channel = std::tuple<const Meeting *, int64_t, int64_t, int64_t>;

  std::vector<std::unique_ptr<Meeting>> meetings;
  std::vector<std::unique_ptr<Member>> members;
  std::atomic<bool> aborted{false};
  std::mutex mutex; // of the two below
  Status reason;
  std::map<Channel, std::deque<std::vector<uint8_t>>> messages;
  std::condition_variable arrived;
  uint64_t bufferedBytes = 0, peakBuffered = 0;
};

} // namespace dshard

#endif // DSHARD_RUNTIME_COMM_INPROCESS_H
