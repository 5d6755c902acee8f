// Times whole layers of short batches, in one launch and kernel by kernel, both as replayed graphs,
// beside the time that reading their weights takes at the rate of a copy; checks the bits first.
//
//   layers_bench [--shape 4b] [--layers 12] [--rows 8,24,64] [--trace 1]
//
// --trace 1 adds what the steps of the middle layer take on one block.

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <functional>
#include <sstream>
#include <string>

#include "bench/gpu_timer.hpp"
#include "tests/support/layers_case.hpp"

namespace tessera::bench {
namespace {

using namespace kernels::cuda;
using testing::LayersCase;

struct Options {
  std::string shape = "4b";
  std::string rows = "8,24,64";
  int layers = 12;
  bool trace = false;
};

Options parse(int argc, char** argv) {
  Options options;
  for (int i = 1; i + 1 < argc; i += 2) {
    if (std::strcmp(argv[i], "--shape") == 0) options.shape = argv[i + 1];
    if (std::strcmp(argv[i], "--rows") == 0) options.rows = argv[i + 1];
    if (std::strcmp(argv[i], "--layers") == 0) options.layers = std::atoi(argv[i + 1]);
    if (std::strcmp(argv[i], "--trace") == 0) options.trace = argv[i + 1][0] == '1';
  }
  return options;
}

double copy_rate() {
  constexpr std::size_t kBytes = std::size_t{1} << 30;
  DeviceBuffer from(kBytes, "a benchmark");
  DeviceBuffer to(kBytes, "a benchmark");
  const double us = median_us([&](int, cudaStream_t stream) {
    cuda_check(cudaMemcpyAsync(to.data(), from.data(), kBytes, cudaMemcpyDeviceToDevice, stream));
  });
  return 2e6 * kBytes / us;
}

double graph_us(const std::function<void(cudaStream_t)>& work) {
  const Stream stream = make_stream();
  work(stream.get());
  cuda_check(cudaStreamSynchronize(stream.get()));
  cuda_check(cudaStreamBeginCapture(stream.get(), cudaStreamCaptureModeRelaxed));
  work(stream.get());
  cudaGraph_t recorded = nullptr;
  cuda_check(cudaStreamEndCapture(stream.get(), &recorded));
  const Graph graph(recorded);
  cudaGraphExec_t executable = nullptr;
  cuda_check(cudaGraphInstantiate(&executable, graph.get(), 0));
  const GraphExec exec(executable);
  return median_us([&](int, cudaStream_t s) { cuda_check(cudaGraphLaunch(exec.get(), s)); }, 5, 15);
}

bool same(LayersCase& layers, LayersCase::Activations& a, LayersCase::Activations& b) {
  layers.start(a, 3);
  layers.start(b, 3);
  layers.run_one_by_one(a, 0, layers.num_steps(), nullptr);
  layers.run_at_once(b, 0, layers.num_steps(), nullptr);
  return a.x.host(layers.rows) == b.x.host(layers.rows);
}

void print_trace(LayersCase& layers, LayersCase::Activations& a, int num_layers) {
  constexpr const char* kNames[] = {"qkv", "rope", "attention", "o", "gate, up", "down"};
  DeviceBuffer trace(static_cast<std::size_t>(layers.num_steps()) * 16, "a benchmark");
  for (int i = 0; i < 3; ++i) {
    layers.run_at_once(a, 0, layers.num_steps(), nullptr, trace.as<std::uint64_t>());
  }
  std::vector<std::uint64_t> times(static_cast<std::size_t>(layers.num_steps()) * 2);
  cuda_check(cudaDeviceSynchronize());
  cuda_check(cudaMemcpy(times.data(), trace.data(), times.size() * 8, cudaMemcpyDeviceToHost));
  const auto first = static_cast<std::size_t>(num_layers / 2 * kLayerSteps);
  for (std::size_t step = first; step < first + kLayerSteps; ++step) {
    std::printf("    %-10s begins %6.1f us, ends %6.1f us\n", kNames[step - first],
                static_cast<double>(times[2 * step] - times[2 * first]) / 1000,
                static_cast<double>(times[2 * step + 1] - times[2 * first]) / 1000);
  }
}

int main_or_throw(int argc, char** argv) {
  const Options options = parse(argc, argv);
  std::setvbuf(stdout, nullptr, _IOLBF, 0);
  const kernels::EncoderShape shape = options.shape == "0.6b" ? testing::kShape06B
                                      : options.shape == "8b" ? testing::kShape8B
                                                              : testing::kShape4B;
  LayersCase layers(shape, options.layers);
  const double floor_us = layers.layer_bytes() / copy_rate() * 1e6;
  std::printf("%s, %d layers; reading a layer's weights takes %.1f us\n", options.shape.c_str(),
              options.layers, floor_us);
  std::istringstream list(options.rows);
  bool right = true;
  for (std::string rows; std::getline(list, rows, ',');) {
    const std::vector<std::int32_t> lengths{std::atoi(rows.c_str())};
    layers.set_lengths(lengths);
    LayersCase::Activations a(shape, kLayersRowsMax), b(shape, kLayersRowsMax);
    const bool agree = same(layers, a, b);
    right = right && agree;
    const double at_once =
        graph_us([&](cudaStream_t s) { layers.run_at_once(a, 0, layers.num_steps(), s); });
    const double one_by_one =
        graph_us([&](cudaStream_t s) { layers.run_one_by_one(a, 0, layers.num_steps(), s); });
    std::printf("  %4ld rows: at once %6.1f us a layer (%.2f x), one by one %6.1f us (%.2f x)%s\n",
                layers.rows, at_once / options.layers, at_once / options.layers / floor_us,
                one_by_one / options.layers, one_by_one / options.layers / floor_us,
                agree ? "" : "  WRONG: other bits");
    if (options.trace) print_trace(layers, a, options.layers);
  }
  return right ? EXIT_SUCCESS : EXIT_FAILURE;
}

}  // namespace
}  // namespace tessera::bench

int main(int argc, char** argv) {
  try {
    return tessera::bench::main_or_throw(argc, argv);
  } catch (const tessera::FatalError& error) {
    std::fprintf(stderr, "layers_bench: %s\n", error.what());
    return EXIT_FAILURE;
  }
}
