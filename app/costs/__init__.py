"""What jobs cost: the price list, the bill of an attempt, the estimate before it, the budget around it.

`prices` and `budgets` are what the settings say, `bills` and `estimates` are rules over them: all four pure,
and tested as tables. `books` reads what was spent. The SQL is in `db.costs`; that a new job is refused once
its tenant's money is gone is `app.intake.spending`'s.
"""
