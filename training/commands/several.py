"""Options that take several values after one name, as a shell's ``*`` gives them."""

from typing import Any

from typer.core import TyperCommand


class SeveralCommand(TyperCommand):
    """A command whose repeatable options need their name once: ``--rollouts a b`` is ``--rollouts a --rollouts b``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Repeats a repeatable option before every further value, the form that the parser knows."""
        repeatable = {
            name for parameter in self.params if getattr(parameter, "multiple", False) for name in parameter.opts
        }
        repeated: list[str] = []
        option = ""
        for previous, argument in zip(["", *args], args, strict=False):
            if argument.startswith("--"):
                option = argument
            elif option in repeatable and previous != option:
                repeated.append(option)
            repeated.append(argument)
        return super().parse_args(ctx, repeated)
