#include "clients/cli/model_commands.hpp"

#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "common/check.hpp"
#include "common/model/fingerprint.hpp"
#include "common/model/memory_estimate.hpp"
#include "common/model/model_folder.hpp"
#include "common/model/synthetic_model.hpp"

namespace tessera::cli {
namespace {

namespace fs = std::filesystem;
using nlohmann::json;

// make

struct MakeArguments {
  fs::path dir;
  std::string shape = "tiny";
  std::uint64_t seed = 0;
};

int make(const MakeArguments& arguments) {
  const bool terminal = ::isatty(STDERR_FILENO) == 1;
  make_model(arguments.dir, arguments.shape, arguments.seed,
             [&](std::uint64_t written, std::uint64_t total) {
               if (terminal) {
                 std::fprintf(stderr, "\r%6.2f of %.2f GB", static_cast<double>(written) / 1e9,
                              static_cast<double>(total) / 1e9);
               }
             });
  if (terminal) {
    std::fputs("\n", stderr);
  }
  std::printf("%s: the %s shape with random weights, seed %llu\n", arguments.dir.c_str(),
              arguments.shape.c_str(), static_cast<unsigned long long>(arguments.seed));
  return 0;
}

void add_make(CLI::App& model, std::function<int()>& run) {
  auto arguments = std::make_shared<MakeArguments>();
  CLI::App* command = model.add_subcommand(
      "make", "Write a complete model folder with random weights, for tests and measurements");
  command->add_option("DIR", arguments->dir, "Folder to write; made if it is not there")
      ->required();
  command->add_option("--shape", arguments->shape, "Size of the model")
      ->check(CLI::IsMember({"tiny", "0.6b", "4b", "8b"}))
      ->capture_default_str();
  command->add_option("--seed", arguments->seed, "The same seed gives the same weights anywhere")
      ->capture_default_str();
  command->callback([arguments, &run] { run = [arguments] { return make(*arguments); }; });
}

// inspect

struct InspectArguments {
  fs::path dir;
  std::int64_t max_batch_tokens = 16384;
  std::int64_t max_sequences = 1024;
  bool as_json = false;
  FingerprintOptions hashing;
};

struct Device {
  std::string name;
  std::vector<MemoryItem> memory;
};

std::vector<Device> device_memory(const ModelConfig& config, const InspectArguments& arguments) {
  const auto estimate = [&](std::int64_t ranks, std::uint64_t bytes, std::uint64_t residual) {
    return estimate_memory(config, {.max_batch_tokens = arguments.max_batch_tokens,
                                    .max_sequences = arguments.max_sequences,
                                    .ranks = ranks,
                                    .weight_bytes = bytes,
                                    .activation_bytes = bytes,
                                    .residual_bytes = residual});
  };
  std::vector<Device> devices = {{"cpu, bfloat16", estimate(1, 2, 4)},
                                 {"cpu, float32", estimate(1, 4, 4)}};
  for (const std::int64_t ranks : {1, 2, 4, 8}) {
    if (config.num_key_value_heads % ranks == 0 && config.intermediate_size % ranks == 0) {
      devices.push_back({"each GPU of " + std::to_string(ranks), estimate(ranks, 2, 2)});
    }
  }
  return devices;
}

struct Inspection {
  ModelFolder folder;
  SeqlenLimit seqlen;
  std::vector<std::string> notes;
  std::size_t tensors = 0;
  std::size_t files = 0;
  std::string types;
  std::string fingerprint, fingerprint_float32, former_fingerprint, tokenizer;
  ModelHash::Work hashing;
};

std::vector<std::string> all_notes(const ModelFolder& folder, const SafetensorsFolder& weights) {
  std::vector<std::string> notes = notes_on(folder);
  if (weights.ignored_index()) {
    notes.push_back("model.safetensors is used, the index beside it is not");
  }
  const auto is_float16 = [](const auto& entry) {
    return entry.second.type == TensorType::kFloat16;
  };
  if (std::ranges::any_of(weights.tensors(), is_float16)) {
    notes.push_back("float16 weights are rounded once, to bfloat16, unless computed in float32");
  }
  return notes;
}

Inspection inspect_folder(const fs::path& given, const FingerprintOptions& options) {
  Inspection found{.folder = value_or_fatal(read_model_folder(given))};
  found.seqlen = value_or_fatal(load_tokenizer(found.folder)).seqlen;
  const auto weights = value_or_fatal(open_weights(found.folder));
  found.notes = all_notes(found.folder, weights);
  found.tensors = weights.tensors().size();
  found.files = weights.files().size();
  std::map<std::string, std::size_t> types;
  for (const auto& [name, tensor] : weights.tensors()) {
    ++types[std::string(to_string(tensor.type))];
  }
  for (const auto& [type, count] : types) {
    found.types += (found.types.empty() ? "" : ", ") + std::to_string(count) + " " + type;
  }
  const ModelHash hash = value_or_fatal(ModelHash::of(found.folder, weights, options));
  found.fingerprint = hash.fingerprint("bfloat16");
  found.fingerprint_float32 = hash.fingerprint("float32");
  found.former_fingerprint = hash.former_fingerprint("bfloat16");
  found.tokenizer = hash.tokenizer();
  found.hashing = hash.work();
  return found;
}

// "the last token's, Dense 256 to 64 with bias and tanh, unit length"
std::string steps_text(const SentenceModules& modules) {
  std::string text = "the last token's, ";
  for (const VectorModule& module : modules.modules) {
    if (module.kind == VectorModule::Kind::kDense) {
      text += "Dense " + std::to_string(module.in_features) + " to " +
              std::to_string(module.out_features) + (module.bias ? " with bias" : "") +
              (module.activation == Activation::kTanh ? " and tanh" : "") + ", ";
    }
  }
  return text + "unit length";
}

void print_hashing(const ModelHash::Work& work) {
  if (work.bytes_read == 0) {
    std::printf("hashing      remembered, %.3f s\n", work.seconds);
  } else {
    std::printf("hashing      %.3f GB in %.2f s, %s\n", static_cast<double>(work.bytes_read) / 1e9,
                work.seconds,
                work.remembered_in.empty()
                    ? "not remembered"
                    : ("remembered in " + work.remembered_in.string()).c_str());
  }
  for (const std::string& name : work.wrong) {
    std::printf(
        "             %s has other bytes than were remembered of it, though its times are "
        "the same\n",
        name.c_str());
  }
}

void print_inspection(const Inspection& found, const std::vector<Device>& devices,
                      const InspectArguments& arguments) {
  const ModelConfig& c = found.folder.config;
  std::printf(
      "shape        hidden %ld, %ld layers, intermediate %ld, %ld query / %ld key-value heads x "
      "%ld, vocabulary %ld\n"
      "positions    %ld, rope theta %g, norm epsilon %g\n"
      "texts        up to %ld tokens (%s)\n"
      "vectors      %ld wide: %s\n"
      "tensors      %zu in %zu file(s): %s\n"
      "parameters   %.3f M that the encoder uses\n"
      "fingerprint  %s (computed in bfloat16)\n"
      "             %s (computed in float32)\n"
      "tokenizer    %s\n",
      c.hidden_size, c.num_hidden_layers, c.intermediate_size, c.num_attention_heads,
      c.num_key_value_heads, c.head_dim, c.vocab_size, c.max_position_embeddings, c.rope_theta,
      c.rms_norm_eps, found.seqlen.tokens, found.seqlen.where.c_str(),
      found.folder.embedding_size(), steps_text(found.folder.modules).c_str(), found.tensors,
      found.files, found.types.c_str(), static_cast<double>(c.parameters()) / 1e6,
      found.fingerprint.c_str(), found.fingerprint_float32.c_str(), found.tokenizer.c_str());
  print_hashing(found.hashing);
  for (const auto& [name, prompt] : found.folder.prompts.by_name) {
    std::printf("prompt       %s: %s\n", name.c_str(), json(prompt).dump().c_str());
  }
  for (const std::string& note : found.notes) {
    std::printf("note         %s\n", note.c_str());
  }
  std::printf("memory       for batches of %ld tokens, %ld texts; a device adds some scratch\n",
              arguments.max_batch_tokens, arguments.max_sequences);
  for (const Device& device : devices) {
    std::printf("  %-20s %8.3f GB\n", device.name.c_str(),
                static_cast<double>(total_bytes(device.memory)) / 1e9);
  }
  std::printf("of which, on one GPU:\n%s\n", format_memory(devices[2].memory).c_str());
}

json hashing_json(const ModelHash::Work& work) {
  return {{"bytes", work.bytes},
          {"bytes_read", work.bytes_read},
          {"seconds", work.seconds},
          {"remembered_in", work.remembered_in.string()},
          {"wrong", work.wrong}};
}

json inspection_json(const Inspection& found, const std::vector<Device>& devices) {
  json memory = json::object();
  for (const Device& device : devices) {
    memory[device.name] = total_bytes(device.memory);
  }
  const ModelFolder& folder = found.folder;
  return {{"folder", folder.dir.string()},
          {"name", folder.name},
          {"config", json::parse(model_config_json(folder.config))},
          {"max_tokens", found.seqlen.tokens},
          {"max_tokens_from", found.seqlen.where},
          {"embedding_size", folder.embedding_size()},
          {"vectors", steps_text(folder.modules)},
          {"prompts", folder.prompts.by_name},
          {"settings", canonical_settings(folder)},
          {"notes", found.notes},
          {"tensors", found.tensors},
          {"files", found.files},
          {"types", found.types},
          {"parameters", folder.config.parameters()},
          {"fingerprint", found.fingerprint},
          {"fingerprint_float32", found.fingerprint_float32},
          {"former_fingerprint", found.former_fingerprint},
          {"tokenizer_hash", found.tokenizer},
          {"hashing", hashing_json(found.hashing)},
          {"memory_bytes", memory}};
}

int inspect(const InspectArguments& arguments) {
  const Inspection found = inspect_folder(arguments.dir, arguments.hashing);
  const std::vector<Device> devices = device_memory(found.folder.config, arguments);
  if (arguments.as_json) {
    std::printf("%s\n", inspection_json(found, devices).dump(2).c_str());
  } else {
    print_inspection(found, devices, arguments);
  }
  return 0;
}

void add_inspect(CLI::App& model, std::function<int()>& run) {
  auto arguments = std::make_shared<InspectArguments>();
  CLI::App* command = model.add_subcommand("inspect",
                                           "Check a model's files and print its shape, prompts, "
                                           "fingerprint and the memory it will need");
  command->add_option("DIR", arguments->dir, "Hugging Face folder, or one of the hub's cache")
      ->required();
  command->add_option("--max-batch-tokens", arguments->max_batch_tokens, "Tokens of one batch")
      ->check(CLI::Range(1, 1 << 24))
      ->capture_default_str();
  command->add_option("--max-batch-sequences", arguments->max_sequences, "Texts of one batch")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command->add_flag("--json", arguments->as_json, "Print JSON, for scripts");
  command->add_flag("--rehash", arguments->hashing.rehash,
                    "Hash all of the weights for the fingerprint, whatever is remembered of them");
  command->add_option("--threads", arguments->hashing.threads, "For hashing; 0 takes all cores")
      ->check(CLI::Range(0, 1024))
      ->capture_default_str();
  command->callback([arguments, &run] { run = [arguments] { return inspect(*arguments); }; });
}

// verify

struct VerifyArguments {
  std::string dir;
  std::string device = "cpu";
  std::string dtype = "bfloat16";
  std::string threads = "0";
};

int verify(const VerifyArguments& arguments) {
  if (auto checked = check_model_folder(arguments.dir); !checked) {
    throw FatalError(checked.error().message);
  }
  const fs::path worker = fs::read_symlink("/proc/self/exe").parent_path() / "tessera-worker";
  const std::array<std::string, 12> words = {worker.string(),   "--verify",      "--model",
                                             arguments.dir,     "--device",      arguments.device,
                                             "--dtype",         arguments.dtype, "--threads",
                                             arguments.threads, "--log-level",   "warn"};
  std::vector<char*> argv;
  for (const std::string& word : words) {
    argv.push_back(const_cast<char*>(word.c_str()));
  }
  argv.push_back(nullptr);
  ::execv(worker.c_str(), argv.data());
  throw FatalError(worker.string() + " cannot be run");
}

void add_verify(CLI::App& model, std::function<int()>& run) {
  auto arguments = std::make_shared<VerifyArguments>();
  CLI::App* command = model.add_subcommand("verify",
                                           "Load a model and run the self-tests: tokenizer, finite "
                                           "unit vectors, batches, golden vectors");
  command->add_option("DIR", arguments->dir, "Hugging Face folder, or one of the hub's cache")
      ->required();
  command->add_option("--device", arguments->device, "cpu, or cuda:N")->capture_default_str();
  command->add_option("--dtype", arguments->dtype, "bfloat16 or float32")
      ->check(CLI::IsMember({"bfloat16", "float32"}))
      ->capture_default_str();
  command->add_option("--threads", arguments->threads, "CPU threads; 0 takes all cores")
      ->capture_default_str();
  command->callback([arguments, &run] { run = [arguments] { return verify(*arguments); }; });
}

}  // namespace

void add_model_commands(CLI::App& app, std::function<int()>& run) {
  CLI::App* model = app.add_subcommand("model", "Make, look at and check model folders");
  model->require_subcommand(1);
  add_make(*model, run);
  add_inspect(*model, run);
  add_verify(*model, run);
}

}  // namespace tessera::cli
