#include "clients/gateway/http/loop.hpp"

#include <boost/asio/defer.hpp>
#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/posix/stream_descriptor.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <condition_variable>
#include <deque>
#include <mutex>
#include <thread>

#include "clients/gateway/http/asio_loop.hpp"

namespace tessera::gateway::http {

namespace asio = boost::asio;
using std::chrono::milliseconds;

namespace {

// Keeps itself alive by the handler that waits; ends with the loop.
struct Periodic : std::enable_shared_from_this<Periodic> {
  Periodic(asio::io_context& context, milliseconds length, Loop::Task run)
      : timer(context), period(length), task(std::move(run)) {}
  void arm() {
    timer.expires_after(period);
    timer.async_wait([self = shared_from_this()](const boost::system::error_code& error) {
      if (!error) {
        self->task();
        self->arm();
      }
    });
  }
  asio::steady_timer timer;
  milliseconds period;
  Loop::Task task;
};

class DescriptorWatch : public Loop::Watch {
 public:
  DescriptorWatch(asio::io_context& context, int fd, Loop::Task ready)
      : state_(std::make_shared<State>(context, fd, std::move(ready))) {
    State::arm(state_);
  }
  ~DescriptorWatch() override {
    state_->task = nullptr;
    state_->descriptor.release();  // The descriptor is its owner's to close.
  }
  DescriptorWatch(const DescriptorWatch&) = delete;
  DescriptorWatch& operator=(const DescriptorWatch&) = delete;

 private:
  struct State {
    State(asio::io_context& context, int fd, Loop::Task ready)
        : descriptor(context, fd), task(std::move(ready)) {}
    static void arm(const std::shared_ptr<State>& state) {
      state->descriptor.async_wait(asio::posix::stream_descriptor::wait_read,
                                   [state](const boost::system::error_code& error) {
                                     if (!error && state->task) {
                                       state->task();
                                     }
                                     if (!error && state->task) {
                                       arm(state);  // At once again while something is left.
                                     }
                                   });
    }
    asio::posix::stream_descriptor descriptor;
    Loop::Task task;
  };
  std::shared_ptr<State> state_;
};

}  // namespace

Loop::Loop() : impl_(std::make_unique<Impl>()) {}
Loop::~Loop() = default;

void Loop::run() {
  impl_->context.run();
  impl_->context.restart();  // For another run(); a stop() that comes before run() still counts.
}
void Loop::stop() { impl_->context.stop(); }

void Loop::post(Task task) { asio::post(impl_->context, std::move(task)); }
void Loop::at_end_of_turn(Task task) { asio::defer(impl_->context, std::move(task)); }

void Loop::after(milliseconds delay, Task task) {
  auto timer = std::make_shared<asio::steady_timer>(impl_->context, delay);
  timer->async_wait([timer, task = std::move(task)](const boost::system::error_code& error) {
    if (!error) {
      task();
    }
  });
}

void Loop::every(milliseconds period, Task task) {
  std::make_shared<Periodic>(impl_->context, period, std::move(task))->arm();
}

std::unique_ptr<Loop::Watch> Loop::watch_readable(int fd, Task ready) {
  return std::make_unique<DescriptorWatch>(impl_->context, fd, std::move(ready));
}

struct SideThread::Impl {
  void run(const std::stop_token& stop) {
    std::unique_lock lock(mutex);
    while (waiting.wait(lock, stop, [this] { return !tasks.empty(); }) && !stop.stop_requested()) {
      Loop::Task task = std::move(tasks.front());
      tasks.pop_front();
      lock.unlock();
      task();
      task = nullptr;  // What it holds goes on this thread.
      lock.lock();
    }
  }
  std::mutex mutex;
  std::condition_variable_any waiting;
  std::deque<Loop::Task> tasks;
  std::jthread thread;
};

SideThread::SideThread() : impl_(std::make_unique<Impl>()) {
  impl_->thread = std::jthread([this](const std::stop_token& stop) { impl_->run(stop); });
}

SideThread::~SideThread() {
  impl_->thread.request_stop();
  impl_->thread.join();
}

void SideThread::post(Loop::Task task) {
  {
    const std::lock_guard lock(impl_->mutex);
    impl_->tasks.push_back(std::move(task));
  }
  impl_->waiting.notify_one();
}

}  // namespace tessera::gateway::http
