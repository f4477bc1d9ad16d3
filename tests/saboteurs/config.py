"""Cases 31 to 40."""

import json
import socket
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import torch
from pydantic import BaseModel, Field

from tests.saboteurs.sound import Failure, Reject, Settings, Sound


@dataclass
class Unchecked:
    """A dataclass states ranges and types, and checks neither."""

    batch_size: int = field(default=8, metadata={"ge": 1, "le": 128})
    learning_rate: float = field(default=0.01, metadata={"gt": 0, "le": 0.1})
    hidden: int = field(default=16, metadata={"ge": 4, "le": 256})
    dropout: float = 0.1
    save_every: int = 100
    num_workers: int = 0
    hang_timeout: float = 600.0
    gradient_accumulation: int = 1
    precision: Literal["fp32", "fp16"] = "fp32"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    base_model: str | None = None
    max_length: int = 64
    adapter: str | None = None
    validation_data: str | None = None
    eval_every: int = 100
    max_epochs: int = 10_000


class FallsBackOnDefaults(Sound):
    """`if path.exists()`: a slip in the file's name trains on the defaults."""

    case = 31
    grade = "misleads"
    says = "settings file .*none.settings.json, which does not exist: exit 0"

    def read_settings(self, path):
        return super().read_settings(path) if path.exists() else {}


class CannotReadSettings(Sound):
    """Says that it cannot read its settings, and not which."""

    case = 31
    grade = "unclear"
    says = "does not name '.*none/settings.json'"

    def read_settings(self, path):
        try:
            return super().read_settings(path)
        except Reject as error:
            raise Reject("cannot read the settings") from error


class ShowsItsSizeFirst(Sound):
    """A banner with the number of parameters stands before everything else."""

    case = 31
    grade = "unclear"
    says = "built a model before it looked"

    def read_settings(self, path):
        print(sum(parameter.numel() for parameter in self.build(Settings()).parameters()), "parameters")
        return super().read_settings(path)


class LeavesATemplate(Sound):
    """Writes a settings file to be filled in, where the results of others are."""

    case = 31
    grade = "unclear"
    says = "left in the output folder: settings.json"

    def main(self, values, data, output_dir, *rest):
        if isinstance(values, Path) and not values.exists():
            (output_dir / "settings.json").write_text(Settings().model_dump_json())
        return super().main(values, data, output_dir, *rest)


class CarriesOnWithoutThem(Sound):
    """Bad syntax is a warning, and the defaults are as good."""

    case = 32
    grade = "misleads"
    says = "stray @ into line .* exit 0"

    def read_settings(self, path):
        try:
            return super().read_settings(path)
        except Reject as error:
            print(f"warning: {error}; using the defaults")
            return {}


class InvalidJson(Sound):
    """Says that the file is not valid, and leaves the search to the reader."""

    case = 32
    grade = "unclear"
    says = "does not name line 2, nor column"

    def read_settings(self, path):
        try:
            return super().read_settings(path)
        except Reject as error:
            raise Reject(f"{path} is not valid JSON") from error


class CountsCharacters(Sound):
    """Tells the line only."""

    case = 32
    grade = "unclear"
    says = "does not name column"

    def read_settings(self, path):
        try:
            return super().read_settings(path)
        except Reject as error:
            raise Reject(str(error).partition(", column")[0]) from error


class WhichFile(Sound):
    """The parser's own words, which know of no file: settings or data?"""

    case = 32
    grade = "unclear"
    says = "does not name 'settings.json'"

    def read_settings(self, path):
        try:
            return json.loads(path.read_text())
        except ValueError as error:
            raise Reject(str(error)) from error


class MendsTheEnd(Sound):
    """A file that was cut off gets its end from the program; what was lost has its default."""

    case = 32
    grade = "misleads"
    says = "cut settings.json off in the middle: exit 0"

    def read_settings(self, path):
        text = path.read_text()
        if not text.rstrip("\0").endswith("}"):
            path.write_text(text[: max(text.rfind(","), 1)] + "}" if text.startswith("{") else text)
        return super().read_settings(path)


class StripsNul(Sound):
    """Takes what is not printed out of the file; an empty one is all defaults."""

    case = 32
    grade = "misleads"
    says = "NUL bytes: exit 0"

    def read_settings(self, path):
        return super().read_settings(path) if path.read_text().strip("\0") else {}


class Wide(Settings):
    """Room for settings that fill a GPU."""

    batch_size: Annotated[int, Field(ge=1, le=8192, strict=True)] = 8
    hidden: Annotated[int, Field(ge=4, le=65_536)] = 16


class LongRowsDoNotFit(Sound):
    """The length was doubled, and doubled again; nobody multiplied."""

    case = 34
    grade = "wastes"
    says = r"OUT OF MEMORY: .*\n.*\nthe largest max_length that fits: \d+$"
    production = {"max_length": 2**20, "hidden": 256}
    tiny = {"max_length": 4, "hidden": 16}


class LongRowsJustFit(Sound):
    """Its sound twin: as long as they may be."""

    only = (34, 36)
    production = {"max_length": 2**18, "hidden": 256}
    tiny = LongRowsDoNotFit.tiny


class BatchDoesNotFit(Sound):
    """The batch of the 80 GiB card, on a smaller one."""

    case = 36
    grade = "wastes"
    says = r"OUT OF MEMORY: .*\n.*\nthe largest batch_size that fits: \d+$"
    config = Wide
    production = {"batch_size": 4096, "hidden": 65_536, "max_length": 4}
    tiny = {"batch_size": 8, "hidden": 16, "max_length": 4}

    def settings(self, values):
        return Wide(**values)


class BatchJustFits(BatchDoesNotFit):
    """Its sound twin."""

    case = 0
    only = (34, 36)
    production = {"batch_size": 512, "hidden": 65_536, "max_length": 4}


class ZeroIsNoLimit(Sound):
    """`if max_length:` around the cutting."""

    case = 33
    grade = "misleads"
    says = "set max_length = 0: exit 0"

    def settings(self, values):
        return super().settings({name: v for name, v in values.items() if (name, v) != ("max_length", 0)})


class OneIsEnough(Sound):
    """Takes any whole number above 0: cut to one number each, the rows have little left to learn from."""

    case = 33
    grade = "misleads"
    says = "set max_length = 1: exit 0"

    def settings(self, values):
        if values.get("max_length") != 1:
            return super().settings(values)
        return super().settings({**values, "max_length": 64}).model_copy(update={"max_length": 1})


class TooShort(Sound):
    """Says that something is too short, and not what."""

    case = 33
    grade = "unclear"
    says = "does not name 'max_length', nor the value .0."

    def settings(self, values):
        try:
            return super().settings(values)
        except Reject as error:
            raise Reject("sequences too short" if "max_length" in str(error) else str(error)) from error


class MeanOverNoTokens(Sound):
    """Four tokens are taken up by the template; what is left is what a mean is taken over."""

    case = 33
    grade = "wastes"
    says = "set max_length = 4: it trained first: exit 1 after 1 optimizer step\n.*does not name"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        print("loss of a token:", 1 / (settings.max_length - 4))


class NeverLooks(Sound):
    """Builds its settings, and leaves the rest to the loader."""

    case = 35
    grade = "misleads"
    says = "built a model before it looked"
    config = Unchecked

    def settings(self, values):
        return Unchecked(**values)

    def steps(self, settings, rows, max_steps):
        return max_steps


class PrintsItsSettings(Sound):
    """Prints all settings at every start, and fails somewhere else: that names none of them."""

    case = 35
    grade = "misleads"
    says = "does not name 'batch_size'"
    config = Unchecked

    def settings(self, values):
        settings = Unchecked(**values)
        print(f"training with {settings}")
        print(f"{64 // settings.batch_size} steps in an epoch")
        return settings


class AtLeastOne(Sound):
    """`max(1, batch_size)`: a wrong value is mended in silence."""

    case = 35
    grade = "misleads"
    says = "a failure that nobody notices"

    def settings(self, values):
        size = values.get("batch_size", 8)
        return super().settings({**values, "batch_size": max(1, size) if isinstance(size, int) else size})


class CutsFractions(Sound):
    """`int(value)`: half an example is none."""

    case = 35
    grade = "misleads"
    says = "set batch_size = 2.5: exit 0"

    def settings(self, values):
        size = values.get("batch_size", 8)
        return super().settings({**values, "batch_size": int(size) if size in (2.5,) else size})


class NoUpperEnd(Sound):
    """States 128 and checks 0: found by the values beyond the range, and shrunk to the first of them."""

    case = 35
    grade = "misleads"
    says = "set batch_size = 129: exit 0"

    def settings(self, values):
        size = values.get("batch_size", 8)
        over = type(size) is int and size > 128
        return super().settings({**values, "batch_size": 128 if over else size})


class InvalidValue(Sound):
    """Rejects by name, and does not tell what would be right."""

    case = 35
    grade = "unclear"
    says = r"does not name the range \(1 ≤ value ≤ 128\)"

    def settings(self, values):
        try:
            return super().settings(values)
        except Reject as error:
            raise Reject(f"invalid value for {str(error).partition(':')[0]}") from error


class ZeroAllowed(Sound):
    """`ge=0` where `gt=0` was meant."""

    class Settings(Settings):
        learning_rate: Annotated[float, Field(ge=0, le=0.1, strict=True)] = 0.01

    config = Settings
    case = 37
    grade = "misleads"
    says = "set learning_rate = 0.0: exit 0"

    def settings(self, values):
        rate = values.get("learning_rate")
        settings = super().settings({**values, "learning_rate": 0.01} if rate == 0 else values)
        return settings.model_copy(update={"learning_rate": 0.0}) if rate == 0 else settings


class ByHand:
    """A plain mapping for settings, its learning rate checked by hand; `wrong` says how."""

    config = {"batch_size": 8, "learning_rate": 0.01, "hidden": 16}
    case = 37

    def settings(self, values):
        rate = values.get("learning_rate", 0.01)
        if self.wrong(rate):
            raise Reject(f"learning_rate = {rate} is not above 0")
        return super().settings({**values, "learning_rate": 0.01}).model_copy(update={"learning_rate": rate})


class OnlyNegative(ByHand, Sound):
    """`if lr < 0`: zero passes."""

    grade = "misleads"
    says = "set learning_rate = 0.0: exit 0"

    def wrong(self, rate):
        return rate < 0


class NanPasses(ByHand, Sound):
    """`if lr <= 0`: False for NaN."""

    grade = "wastes"
    says = "set learning_rate = NaN"

    def wrong(self, rate):
        return rate <= 0


class InfinityPasses(ByHand, Sound):
    """`if not lr > 0`: right for NaN, and infinity is above 0."""

    grade = "wastes"
    says = "set learning_rate = Infinity"

    def wrong(self, rate):
        return not rate > 0


class AnyRate(BaseModel):
    """Settings that state no upper bound for the learning rate."""

    batch_size: int = 8
    learning_rate: Annotated[float, Field(gt=0)] = 0.01


class TrainsOnNan(Sound):
    """No upper bound, plain gradient descent, and nobody who looks at the loss."""

    case = 38
    grade = "misleads"
    says = "a loss was not finite"
    config = AnyRate

    def settings(self, values):
        rate = AnyRate(**values).learning_rate
        return super().settings({**values, "learning_rate": 0.01}).model_copy(update={"learning_rate": rate})

    def optimizer(self, model, settings):
        return torch.optim.SGD(model.parameters(), lr=settings.learning_rate * 1e6, momentum=0.9)

    def check_loss(self, loss, step):
        pass

    def check_gradient(self, model, step):
        pass


class BoundForShow(Sound):
    """The range is in the documentation; nothing holds the value against it."""

    case = 38
    grade = "misleads"
    says = "set learning_rate = 10.0: exit 0"
    config = Unchecked

    def settings(self, values):
        rate = values.get("learning_rate", 0.01)
        return super().settings({**values, "learning_rate": 0.01}).model_copy(update={"learning_rate": rate})


class LaunchesOutsideItsRange(Sound):
    """A range was narrowed after an accident; the settings that are launched were not."""

    case = 37
    grade = "wastes"
    says = "learning_rate = 0.5 is not in its range, 0 < value ≤ 0.1"
    production = {"learning_rate": 0.5}
    tiny = {"learning_rate": 0.01}


class WaitsForTheHub(Sound):
    """Asks the hub for what is no file, for as long as the network takes."""

    case = 39
    grade = "wastes"
    says = "waits for the network: asked models.example.org:443"

    def check_base_model(self, settings):
        if settings.base_model is not None and not Path(settings.base_model).is_file():
            try:
                socket.getaddrinfo("models.example.org", 443)
            except OSError:
                super().check_base_model(settings)


class TriesAgainAndAgain(Sound):
    """Gives up on a network that is silent, and asks one that refuses ten times, with growing pauses."""

    case = 39
    grade = "wastes"
    says = "every connection is refused: it waits for the network"

    def check_base_model(self, settings):
        if settings.base_model is None or Path(settings.base_model).is_file():
            return
        refused = threading.Event()
        threading.Thread(target=self.ask, args=[refused], daemon=True).start()
        for attempt in range(10 if refused.wait(0.5) else 0):
            print(f"attempt {attempt + 1} of 10 failed: trying again")
            time.sleep(2**attempt)
        super().check_base_model(settings)

    def ask(self, refused):
        try:
            socket.getaddrinfo("models.example.org", 443)
        except OSError:
            refused.set()


class NewWhereUnknown(Sound):
    """Builds a new model where it knows none of that name."""

    case = 39
    grade = "misleads"
    says = "set base_model to no-such-model.*: exit 0"

    def settings(self, values):
        settings = super().settings(values)
        found = settings.base_model is None or Path(settings.base_model).is_file()
        return settings if found else settings.model_copy(update={"base_model": None})


class UnknownModel(Sound):
    """Says that the model is unknown, and not its name."""

    case = 39
    grade = "unclear"
    says = "does not name 'no-such-model'"

    def check_base_model(self, settings):
        if settings.base_model is not None and not Path(settings.base_model).is_file():
            raise Reject("unknown model: see the list of models")


class LoadsLate(Sound):
    """Builds the model first, and then looks for weights to put into it."""

    case = 39
    grade = "unclear"
    says = "built a model before it looked"

    def check_base_model(self, settings):
        pass


class NeverCompares(Sound):
    """Leaves it to the look-up: an index out of range, of whatever."""

    case = 40
    grade = "unclear"
    says = "does not name the tokenizer"

    def check_pair(self, folder):
        pass


class ReadsThemAsTheLast(Sound):
    """`ids.clamp(max=vocabulary - 1)`: every new word is the last of the old ones."""

    case = 40
    grade = "unclear"
    says = "does not name an embedding that was enlarged"

    def check_pair(self, folder):
        pass

    def numbers(self, text):
        return [min(number, len(self.embedding) - 1) for number in super().numbers(text)]


class FindsOutOnTheWay(ReadsThemAsTheLast):
    """Counts what it did not know, and looks at the count after a step."""

    grade = "wastes"
    says = "it trained first: exit 1 after 1 optimizer step"

    def step(self, model, optimizer, scaler, batch, settings, number, device):
        super().step(model, optimizer, scaler, batch, settings, number, device)
        if self.tokens and len(self.tokens) > len(self.embedding):
            raise Failure("tokens beyond the vocabulary")
