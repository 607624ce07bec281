// The fibers behind emulate.h, and the two things that the bindings ask of a CUDA build of torch.
#include "emulate.h"

#include <setjmp.h>
#include <ucontext.h>

#include <cstdio>
#include <cstdlib>
#include <memory>
#include <vector>

dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace emulated {
namespace {

enum class State { kReady, kWaitsForBlock, kWaitsForWarp, kDone };
constexpr size_t kStack = 96 * 1024;

struct Fiber {
  ucontext_t context;  // serves to begin; from then on jumps are cheaper, as they leave the signal mask alone
  jmp_buf position;
  bool begun = false;
  std::unique_ptr<char[]> stack;
  dim3 index;
  State state = State::kDone;
};

jmp_buf scheduler;
std::vector<std::unique_ptr<Fiber>> fibers;
std::vector<uint64_t> slots;
unsigned threads, current;
const std::function<void()>* running;

[[noreturn]] void fail(const char* what) {
  std::fprintf(stderr, "emulated CUDA: %s (block %u %u %u, thread %u)\n", what, blockIdx.x, blockIdx.y, blockIdx.z,
               current);
  std::abort();
}

void leave(State state) {
  Fiber& self = *fibers[current];
  self.state = state;
  if (_setjmp(self.position) == 0) _longjmp(scheduler, 1);
}

void enter(Fiber& fiber) {
  if (_setjmp(scheduler) != 0) return;
  if (fiber.begun) _longjmp(fiber.position, 1);
  fiber.begun = true;
  setcontext(&fiber.context);
}

void live() {  // a fiber serves one thread after the other
  for (;;) {
    (*running)();
    leave(State::kDone);
  }
}

void make_fibers() {
  while (fibers.size() < threads) {
    auto fiber = std::make_unique<Fiber>();
    fiber->stack.reset(new char[kStack]);
    getcontext(&fiber->context);
    fiber->context.uc_stack.ss_sp = fiber->stack.get();
    fiber->context.uc_stack.ss_size = kStack;
    fiber->context.uc_link = nullptr;
    makecontext(&fiber->context, live, 0);
    fibers.push_back(std::move(fiber));
  }
  slots.resize(2 * fibers.size());
}

// Runs one warp until its threads have ended or wait for the block.
void run_warp(unsigned first, bool forward) {
  const unsigned lanes = first + 32 < threads ? 32 : threads - first;
  unsigned waiting;
  do {
    for (unsigned turn = 0; turn < lanes; ++turn) {
      const unsigned i = first + (forward ? turn : lanes - 1 - turn);
      if (fibers[i]->state != State::kReady) continue;
      current = i;
      threadIdx = fibers[i]->index;
      enter(*fibers[i]);
    }
    waiting = 0;
    for (unsigned i = first; i < first + lanes; ++i) waiting += fibers[i]->state == State::kWaitsForWarp;
    if (waiting != 0 && waiting != lanes) fail("a warp waits for lanes that have left it");
    for (unsigned i = first; i < first + lanes && waiting != 0; ++i) fibers[i]->state = State::kReady;
  } while (waiting != 0);
}

void run_block() {
  for (unsigned i = 0; i < threads; ++i) {
    fibers[i]->state = State::kReady;
    fibers[i]->index = dim3(i % blockDim.x, i / blockDim.x % blockDim.y, i / blockDim.x / blockDim.y);
  }
  // Between barriers any order is allowed. To find barriers that are missing, each warp runs as far as it can before
  // another begins, and the first and the last one take turns in going first.
  bool forward = blockIdx.x % 2 == 0, waiting = true;
  while (waiting) {
    const unsigned warps = (threads + 31) / 32;
    for (unsigned turn = 0; turn < warps; ++turn) run_warp(32 * (forward ? turn : warps - 1 - turn), forward);
    forward = !forward;
    waiting = false;
    for (unsigned i = 0; i < threads; ++i) {
      if (fibers[i]->state != State::kWaitsForBlock) continue;
      fibers[i]->state = State::kReady;
      waiting = true;
    }
  }
}

}  // namespace

void launch(dim3 grid, dim3 block, const std::function<void()>& kernel) {
  if (grid.x == 0 || grid.y == 0 || grid.z == 0 || grid.y > 65535 || grid.z > 65535) fail("grid is not allowed");
  threads = block.x * block.y * block.z;
  if (threads == 0 || threads > 1024) fail("block is not allowed");
  make_fibers();
  running = &kernel;
  gridDim = grid;
  blockDim = block;
  for (unsigned z = 0; z < grid.z; ++z)
    for (unsigned y = 0; y < grid.y; ++y)
      for (unsigned x = 0; x < grid.x; ++x) {
        blockIdx = dim3(x, y, z);
        run_block();
      }
}

void wait_for_block() { leave(State::kWaitsForBlock); }

void wait_for_warp(unsigned mask) {
  if (mask != 0xffffffffu || current / 32 * 32 + 32 > threads) fail("only full warps are emulated");
  leave(State::kWaitsForWarp);
}

int lane() { return static_cast<int>(current % 32); }
void* slot(int lane) { return &slots[2 * (current / 32 * 32 + lane)]; }

}  // namespace emulated

float __half2float(__half x) {
  const int sign = x.bits >> 15, exponent = x.bits >> 10 & 31, fraction = x.bits & 1023;
  float value = exponent == 31 ? (fraction ? NAN : INFINITY)
                : exponent     ? ldexpf(1024 + fraction, exponent - 25)
                               : ldexpf(fraction, -24);
  return sign ? -value : value;
}

__half __float2half_rn(float x) {
  const uint16_t sign = signbit(x) ? 0x8000 : 0;
  const float size = fabsf(x);
  if (x != x) return {0x7fff};
  if (size >= 65520.0f) return {static_cast<uint16_t>(sign | 0x7c00)};
  // Rounded to even at the last place; a carry moves on to the next exponent by itself.
  const int exponent = size < 0x1p-14f ? -14 : ilogbf(size);
  const int units = static_cast<int>(rintf(ldexpf(size, 10 - exponent)));
  return {static_cast<uint16_t>(sign | (units + ((exponent + 14) << 10)))};
}

extern "C" {
int32_t aoti_torch_get_current_cuda_stream(int32_t, void** stream) {
  *stream = nullptr;
  return 0;
}
int32_t aoti_torch_create_device_guard(int32_t, void** guard) {
  *guard = nullptr;
  return 0;
}
int32_t aoti_torch_delete_device_guard(void*) { return 0; }
}
